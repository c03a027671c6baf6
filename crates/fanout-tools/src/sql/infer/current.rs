//! The rows as they are now, for a write that missed them.
//!
//! From a statement that finds its rows by their whole primary key. To its transaction, which asks before it is undone, so that the
//! model can try again at once.
//!
//! Only such columns are shown as the author lets the model see anyway: those that are compared with inputs, and those that the
//! statement returns.

use sqlparser::ast::{
    BinaryOperator, Delete, Expr, FromTable, SelectItem, Statement as Parsed, TableFactor, Update, Value,
};

use super::catalog::Catalog;
use super::keys::Conditions;
use super::names::{self, Named};
use super::walk::parse;
use crate::sql::{Dialect, Statement};

/// A statement that reads the rows which this one would write, whatever else it demands of them.
pub(in crate::sql) fn current(statement: &Statement, catalog: &Catalog) -> Option<Statement> {
    let dialect = statement.dialect();
    let (target, selection, returning) = match parse(dialect, statement.text())? {
        Parsed::Update(Update { table, selection, returning, from: None, .. }) if table.joins.is_empty() => {
            (table.relation, selection?, returning)
        }
        Parsed::Delete(Delete { from, selection, returning, using: None, .. }) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
            let [only] = <[_; 1]>::try_from(from).ok()?;
            (only.relation, selection?, returning)
        }
        _ => return None,
    };
    let named = Named::of(dialect, &target)?;
    let (schema, name) = names::split(dialect, named.name)?;
    let (_, relation) = catalog.relation(schema.as_deref(), &name)?;
    let compared = compared(statement, &target, &selection);
    let picked = |key: &String| compared.iter().find(|(column, _)| column == key);
    let keys: Option<Vec<_>> = relation.primary_key.iter().map(picked).collect();
    let keys = keys.filter(|keys| !keys.is_empty())?;
    let mut columns: Vec<String> = compared.iter().map(|(column, _)| column.clone()).collect();
    columns.extend(returning.iter().flatten().filter_map(|item| plain(dialect, item)));
    let mut shown: Vec<String> = Vec::new();
    for column in columns.iter().filter(|column| relation.column(column).is_some()).map(|column| quoted(column)) {
        if !shown.contains(&column) {
            shown.push(column);
        }
    }
    let conditions: Vec<String> = keys.iter().map(|(column, value)| format!("{} = {value}", quoted(column))).collect();
    let text = format!("select {} from {} where {}", shown.join(", "), named.name, conditions.join(" and "));
    Statement::parse(dialect, &text).ok()
}

/// The columns that are compared with an input by `=`, each with what stands on the other side.
fn compared(statement: &Statement, target: &TableFactor, selection: &Expr) -> Vec<(String, String)> {
    let dialect = statement.dialect();
    let Some(called) = Named::of(dialect, target).and_then(|named| named.called) else { return Vec::new() };
    let mut conditions = Conditions::default();
    conditions.add(selection);
    let equal = |condition: &&Expr| {
        let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = condition else { return None };
        let column = |side| names::column_of(dialect, side, &called);
        column(left).zip(input(statement, right)).or_else(|| column(right).zip(input(statement, left)))
    };
    conditions.all.iter().filter_map(equal).collect()
}

/// An input as it is written in a statement, with its cast if it has one.
fn input(statement: &Statement, value: &Expr) -> Option<String> {
    match value {
        Expr::Nested(inner) => input(statement, inner),
        Expr::Cast { expr, data_type, .. } => Some(format!("cast({} as {data_type})", input(statement, expr)?)),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(place) => {
                let number: usize = place.get(1..)?.parse().ok()?;
                Some(format!(":{}", statement.parameters().get(number.checked_sub(1)?)?))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The column that a statement returns as it is.
fn plain(dialect: Dialect, item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => Some(names::folded(dialect, column)),
        _ => None,
    }
}

fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::infer::catalog::{Column, Kind, Name, Relation};

    #[track_caller]
    fn check(text: &str, asked: Option<&str>) {
        let mut catalog = Catalog::new(Dialect::Postgres);
        let column = |name: &str| Column { name: name.to_owned(), ..Column::default() };
        let stock = Relation {
            kind: Kind::Table,
            columns: ["sku", "qty", "version"].map(column).into(),
            primary_key: vec!["sku".to_owned()],
            ..Relation::default()
        };
        catalog.relations.insert(Name::new("public", "stock"), stock);
        let statement = Statement::parse(Dialect::Postgres, text).unwrap();
        let now = current(&statement, &catalog);
        assert_eq!(now.as_ref().map(Statement::text), asked, "{text}");
        // Each input keeps its name.
        assert!(now.iter().flat_map(Statement::parameters).all(|name| statement.parameters().contains(name)));
    }

    #[test]
    fn only_rows_that_are_named_by_their_key_are_asked_for_and_only_columns_that_are_shown_anyway() {
        let row = Some(r#"select "sku", "version", "qty" from stock where "sku" = $1"#);
        check(
            "update stock set qty = :n where version = :v and sku = :sku returning qty",
            Some(r#"select "version", "sku", "qty" from stock where "sku" = $1"#),
        );
        check("update stock s set qty = 0 where s.sku = :sku and :v = s.version returning qty, version", row);
        check(
            "delete from stock where sku = :sku::text and qty > 0",
            Some(r#"select "sku" from stock where "sku" = cast($1 as TEXT)"#),
        );
        check("update stock set qty = 0 where version = :v", None);
        check("update stock set qty = 0 where sku = 'a'", None);
        check("update stock set qty = 0 where sku = :sku or version = :v", None);
        check("update stock set qty = 0 from other where sku = :sku", None);
        check("update nowhere set qty = 0 where sku = :sku", None);
        check("insert into stock values (:sku, 1, 1)", None);
    }
}
