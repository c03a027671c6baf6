//! Which rows a statement names by their primary key.
//!
//! From the conditions of one level of a query, or the values of an `INSERT`. To the templates of those rows, or the reason
//! why it is all rows of the table that have to be kept from others.
//!
//! Only what restricts the level as a whole counts: a condition under `OR` or `NOT`, or in a query further in, does not.

use fanout_core::effects::{Canonical, Cell, Template};
use sqlparser::ast::{ArrayElemTypeDef, BinaryOperator, DataType, Expr, Value};

use super::catalog::{Column, Relation};
use super::names;
use crate::sql::Dialect;

/// More rows than this in one statement are the table: each of them is a key of every call.
const ROWS_MAX: usize = 100;

/// The rows, or the reason why they cannot be told apart from the others of their table.
pub(super) type Keys = Result<Rows, String>;

/// Rows of one table, named by their whole primary key.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// The templates of their keys.
    pub templates: Vec<Template>,
    /// Whether it is at most one, whatever the input.
    pub is_one: bool,
}

/// What every row of one level of a query has to meet.
#[derive(Default)]
pub(super) struct Conditions<'a> {
    pub all: Vec<&'a Expr>,
}

impl<'a> Conditions<'a> {
    /// Adds a condition, taken apart at each `AND`.
    pub(super) fn add(&mut self, condition: &'a Expr) {
        match condition {
            Expr::Nested(inner) => self.add(inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.add(left);
                self.add(right);
            }
            other => self.all.push(other),
        }
    }
}

/// Values that one column is compared with.
enum Compared<'a> {
    /// It equals one of these.
    Any(Vec<&'a Expr>),
    /// It equals an element of this array.
    Element(&'a Expr),
}

/// What a statement knows that the keys are made of.
#[derive(Clone, Copy)]
pub(super) struct Making<'a> {
    pub dialect: Dialect,
    /// The path of the table.
    pub table: [&'a str; 3],
    /// The names of the parameters, by number.
    pub parameters: &'a [String],
}

impl<'a> Making<'a> {
    /// The rows that the conditions name by comparing the whole primary key, of the table that the level calls so.
    pub(super) fn compared(self, relation: &Relation, called: Option<&str>, conditions: &Conditions<'a>) -> Keys {
        let mut columns = Vec::new();
        for column in key_columns(relation)? {
            let form = spelling(column)?;
            let found = called.and_then(|called| {
                let comparisons = conditions.all.iter().flat_map(|condition| equalities(condition));
                let mine =
                    |left: &Expr| names::column_of(self.dialect, left, called).is_some_and(|name| name == column.name);
                comparisons.filter(|(left, _)| mine(left)).find_map(|(_, with)| self.cells(form, &with))
            });
            columns.push(found.ok_or_else(|| {
                format!("its primary key (`{}`) is not compared with an input", relation.primary_key.join("`, `"))
            })?);
        }
        self.rows(&columns)
    }

    /// The rows that are written, by the value of each column of their primary key.
    pub(super) fn given(self, relation: &Relation, values: &[(&str, Vec<&'a Expr>)]) -> Keys {
        let mut columns = Vec::new();
        for column in key_columns(relation)? {
            let form = spelling(column)?;
            if column.is_limited {
                return Err(format!("column `{}` may cut a value to fit, so two texts can be one row", column.name));
            }
            let given = values.iter().find(|(name, _)| *name == column.name);
            let cells = given.and_then(|(_, rows)| rows.iter().map(|value| self.cell(form, value)).collect());
            let cells: Vec<Cell<'a>> = cells
                .ok_or_else(|| format!("the statement does not give its primary key (`{}`) by inputs", column.name))?;
            columns.push(cells);
        }
        let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
        if rows == 0 {
            return Err("the statement does not give its primary key by inputs".to_owned());
        }
        if rows > ROWS_MAX {
            return Err(format!("the statement names more than {ROWS_MAX} rows"));
        }
        let row = |at: usize| -> Vec<Cell<'_>> { columns.iter().map(|cells| cells[at]).collect() };
        Ok(Rows { templates: (0..rows).map(|at| Template::row(&self.table, &row(at))).collect(), is_one: rows == 1 })
    }

    /// Every combination of the values of each column.
    fn rows<'c>(self, columns: &[Vec<Cell<'c>>]) -> Keys {
        if columns.iter().map(Vec::len).product::<usize>() > ROWS_MAX {
            return Err(format!("the statement names more than {ROWS_MAX} rows"));
        }
        let mut rows: Vec<Vec<Cell<'c>>> = vec![Vec::new()];
        for cells in columns {
            let longer = |row: &Vec<Cell<'c>>| -> Vec<Vec<Cell<'c>>> {
                cells.iter().map(|cell| [row.as_slice(), &[*cell]].concat()).collect()
            };
            rows = rows.iter().flat_map(longer).collect();
        }
        let has_array = rows.iter().flatten().any(|cell| matches!(cell, Cell::Each { .. }));
        let is_one = rows.len() == 1 && !has_array;
        Ok(Rows { templates: rows.iter().map(|row| Template::row(&self.table, row)).collect(), is_one })
    }

    fn cells(self, form: Canonical, with: &Compared<'a>) -> Option<Vec<Cell<'a>>> {
        match with {
            Compared::Any(values) => values.iter().map(|value| self.cell(form, value)).collect(),
            Compared::Element(array) => {
                let field = self.parameter(bare(array, &|target| is_array_of(target, form))?)?;
                Some(vec![Cell::Each { field, form }])
            }
        }
    }

    /// One value: a parameter or a literal, cast at most to the column's own kind.
    fn cell(self, form: Canonical, value: &'a Expr) -> Option<Cell<'a>> {
        let value = bare(value, &|target| form_of(target) == Some(form))?;
        if let Some(field) = self.parameter(value) {
            return Some(Cell::One { field, form });
        }
        let Expr::Value(literal) = value else { return None };
        let text = match (&literal.value, form) {
            (Value::SingleQuotedString(text), _) => text,
            (Value::Number(text, false), Canonical::Integer) => text,
            _ => return None,
        };
        form.accepts(text).then_some(Cell::Value(text))
    }

    fn parameter(self, value: &Expr) -> Option<&'a str> {
        let Expr::Value(value) = value else { return None };
        let Value::Placeholder(text) = &value.value else { return None };
        let number: usize = text.trim_start_matches(['$', '?']).parse().ok()?;
        self.parameters.get(number.checked_sub(1)?).map(String::as_str)
    }
}

fn key_columns(relation: &Relation) -> Result<Vec<&Column>, String> {
    let columns: Vec<&Column> = relation.primary_key.iter().filter_map(|name| relation.column(name)).collect();
    if columns.is_empty() || columns.len() != relation.primary_key.len() {
        return Err("it has no primary key".to_owned());
    }
    Ok(columns)
}

fn spelling(column: &Column) -> Result<Canonical, String> {
    column.form.ok_or_else(|| format!("two spellings of `{}`, its primary key, can be one row", column.name))
}

/// The comparisons with `=` in one condition, as column and values, either way round.
fn equalities(condition: &Expr) -> Vec<(&Expr, Compared<'_>)> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => match (&**left, &**right) {
            (Expr::Tuple(left), Expr::Tuple(right)) if left.len() == right.len() => {
                left.iter().zip(right).flat_map(|(left, right)| both_ways(left, right)).collect()
            }
            (left, right) => both_ways(left, right).into(),
        },
        Expr::InList { expr, list, negated: false } => vec![(&**expr, Compared::Any(list.iter().collect()))],
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => vec![(&**left, Compared::Element(right))],
        _ => Vec::new(),
    }
}

fn both_ways<'a>(left: &'a Expr, right: &'a Expr) -> [(&'a Expr, Compared<'a>); 2] {
    [(left, Compared::Any(vec![right])), (right, Compared::Any(vec![left]))]
}

/// The value without parentheses and harmless casts; `None` if another cast stands around it.
fn bare<'a>(value: &'a Expr, is_harmless: &dyn Fn(&DataType) -> bool) -> Option<&'a Expr> {
    match value {
        Expr::Nested(inner) => bare(inner, is_harmless),
        Expr::Cast { expr, data_type, .. } => is_harmless(data_type).then(|| bare(expr, is_harmless)).flatten(),
        other => Some(other),
    }
}

/// The kind of a type that a cast names, where the cast changes nothing that is written in the one way.
fn form_of(target: &DataType) -> Option<Canonical> {
    match target {
        DataType::SmallInt(None) | DataType::Int(None) | DataType::Integer(None) | DataType::BigInt(None) => {
            Some(Canonical::Integer)
        }
        DataType::Int2(None) | DataType::Int4(None) | DataType::Int8(None) => Some(Canonical::Integer),
        DataType::Uuid => Some(Canonical::Uuid),
        DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) => Some(Canonical::Text),
        _ => None,
    }
}

fn is_array_of(target: &DataType, form: Canonical) -> bool {
    match target {
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => form_of(element) == Some(form),
        _ => false,
    }
}
