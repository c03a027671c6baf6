//! The statements that write, each with the rows that it names.
//!
//! From `walk`, when it enters one. To `tables`. The queries inside are not looked at here: `walk` comes to them next.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Insert, Merge, OnConflictAction, OnInsert, SetExpr,
    SqliteOnConflict, TableObject, Update, UpdateTableFromKind,
};

use fanout_core::effects::Mode;

use super::catalog::{Catalog, Column, Events, Name, Relation};
use super::keys::{Conditions, Keys, Making};
use super::names::{self, Named};
use super::tables::{Values, all_rows};
use super::walk::Walk;
use crate::sql::Dialect;

/// SQLite's names for the number of a row, where no column is called so.
const ROW_NUMBER: [&str; 3] = ["_rowid_", "oid", "rowid"];

/// Why an insert without a readable target is everything.
const NO_TARGET: &str = "what is written is not understood";

impl<'a> Walk<'a, '_> {
    pub(super) fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(target) = &insert.table else { return self.touched.whole(Mode::Write, NO_TARGET) };
        self.settle(target);
        let Some((name, relation)) = self.resolve(target) else { return self.unknown_target() };
        let values = self.inserted(insert, relation);
        let set_on_conflict = match &insert.on {
            None => Vec::new(),
            Some(OnInsert::OnConflict(conflict)) => match &conflict.action {
                OnConflictAction::DoNothing => Vec::new(),
                OnConflictAction::DoUpdate(update) => self.assigned(name, &update.assignments),
            },
            Some(_) => return self.touched.whole(Mode::Write, NO_TARGET),
        };
        let replaces = insert.or == Some(SqliteOnConflict::Replace) || insert.replace_into;
        let delete = replaces || self.replaces(name);
        let events = Events { insert: true, update: !set_on_conflict.is_empty(), delete };
        let keys = self.inserted_keys(name, relation, &values, &set_on_conflict);
        self.write(name, events, &keys);
        self.changes(name, Events { insert: true, ..Events::default() }, Some(&values));
        if events.update {
            let set: Values<'_> =
                set_on_conflict.iter().map(|(column, value)| (column.as_str(), value.clone())).collect();
            self.changes(name, Events { update: true, ..Events::default() }, Some(&set));
        }
        if events.delete {
            self.changes(name, Events { delete: true, ..Events::default() }, None);
        }
        self.touched.has_added = true;
    }

    /// What an `INSERT` gives each column, row by row; no rows where a query does.
    fn inserted<'q>(&self, insert: &'q Insert, relation: &'a Relation) -> Values<'q>
    where
        'a: 'q,
    {
        let named = |column| names::last(self.dialect, column);
        let listed: Vec<String> = insert.columns.iter().filter_map(named).collect();
        let columns: Vec<&'a str> = if insert.columns.is_empty() {
            // SQLite gives no place to a column that it computes.
            let has_place = |column: &&'a Column| self.dialect == Dialect::Postgres || !column.is_generated;
            relation.columns.iter().filter(has_place).map(|column| column.name.as_str()).collect()
        } else {
            let known = |name: &String| relation.column(name).map_or("", |column| column.name.as_str());
            listed.iter().map(known).collect()
        };
        let Some(source) = &insert.source else { return Vec::new() };
        let mut values: Values<'q> = match &*source.body {
            SetExpr::Values(rows) => {
                let width = rows.rows.iter().map(|row| row.content.len()).min().unwrap_or(0);
                let value = |at: usize| rows.rows.iter().filter_map(|row| row.content.get(at)).collect();
                columns.into_iter().take(width).enumerate().map(|(at, column)| (column, value(at))).collect()
            }
            _ => columns.into_iter().map(|column| (column, Vec::new())).collect(),
        };
        if listed.iter().any(|column| self.is_row_number(relation, column)) {
            values.retain(|(column, _)| !relation.primary_key.iter().any(|key| key == column));
            values.extend(relation.primary_key.iter().map(|key| (key.as_str(), Vec::new())));
        }
        values
    }

    /// Whether a name means the number that SQLite gives every row, which may be its primary key.
    fn is_row_number(&self, relation: &Relation, column: &str) -> bool {
        self.dialect == Dialect::Sqlite && ROW_NUMBER.contains(&column) && relation.column(column).is_none()
    }

    fn inserted_keys(
        &self,
        name: &'a Name,
        relation: &'a Relation,
        values: &Values<'_>,
        set_on_conflict: &[(String, Vec<&Expr>)],
    ) -> Keys {
        let Some(catalog) = self.catalog else { return all_rows("the database could not be asked") };
        let keyed = self.keyed_by(name, relation);
        if let Some(other) = other_unique(catalog, name, keyed) {
            return Err(other);
        }
        let is_default =
            |value: &&Expr| matches!(value, Expr::Identifier(word) if word.value.eq_ignore_ascii_case("default"));
        let is_set = |column: &str| values.iter().any(|(name, given)| *name == column && !given.iter().any(is_default));
        if let Some(numbered) = catalog.columns(name).find(|column| column.is_numbered && !is_set(&column.name)) {
            return Err(format!("the database numbers `{}` in the order of the inserts", numbered.name));
        }
        if let Some((column, _)) = set_on_conflict.iter().find(|(column, _)| keyed.primary_key.contains(column)) {
            return Err(format!("it changes `{column}`, which its primary key holds"));
        }
        let table = self.root(name);
        Making { dialect: self.dialect, table: ["sql", self.touched.database(), &table], parameters: self.parameters }
            .given(keyed, values)
    }

    pub(super) fn update(&mut self, update: &Update) {
        let from = match &update.from {
            None => [].as_slice(),
            Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => from,
        };
        let Some(target) = Named::of(self.dialect, &update.table.relation).filter(|_| update.table.joins.is_empty())
        else {
            return self.touched.whole(Mode::Write, NO_TARGET);
        };
        let mut conditions = Conditions::default();
        if let Some(selection) = &update.selection {
            conditions.add(selection);
        }
        let others = Self::from(from, &mut conditions);
        self.settle(target.name);
        let Some((name, relation)) = self.resolve(target.name) else { return self.unknown_target() };
        let assigned = self.assigned(name, &update.assignments);
        let set: Values<'_> = assigned.iter().map(|(column, value)| (column.as_str(), value.clone())).collect();
        let moved = self.moves(name, relation, &set);
        let replaces = update.or == Some(SqliteOnConflict::Replace) || moved.is_some() && self.replaces(name);
        let keys = match moved {
            Some(reason) => Err(reason),
            None => self.compared(name, relation, &target, &conditions),
        };
        let mut events = self.update_of(name, |column| set.iter().any(|(name, _)| *name == column));
        events.delete |= replaces;
        self.write(name, events, &keys);
        self.changes(name, Events { update: true, ..Events::default() }, Some(&set));
        if events.delete {
            self.changes(name, Events { delete: true, ..Events::default() }, None);
        }
        self.level(&others, &conditions);
    }

    /// Why an update of these columns can meet other rows than those that it names.
    fn moves(&self, name: &'a Name, relation: &'a Relation, set: &Values<'_>) -> Option<String> {
        let catalog = self.catalog?;
        let keyed = self.keyed_by(name, relation);
        let is_set = |column: &String| set.iter().any(|(name, _)| name == column);
        if let Some(column) = keyed.primary_key.iter().find(|column| is_set(column)) {
            return Some(format!("it changes `{column}`, which its primary key holds"));
        }
        let uniques = catalog.family(name).flat_map(|(_, member)| member.uniques.iter().chain([]));
        let keys = catalog.family(name).map(|(_, member)| &member.primary_key);
        for unique in uniques {
            match unique {
                None => return Some("a unique index or an exclusion holds more than its columns".to_owned()),
                Some(columns) if columns.iter().any(is_set) => return Some(unique_too(columns)),
                Some(_) => {}
            }
        }
        keys.filter(|columns| columns.iter().any(is_set)).map(|columns| unique_too(columns)).next()
    }

    pub(super) fn delete(&mut self, delete: &Delete) {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let target = match from.as_slice() {
            [only] if only.joins.is_empty() && delete.tables.is_empty() => Named::of(self.dialect, &only.relation),
            _ => None,
        };
        let Some(target) = target else { return self.touched.whole(Mode::Write, NO_TARGET) };
        let mut conditions = Conditions::default();
        if let Some(selection) = &delete.selection {
            conditions.add(selection);
        }
        let others = Self::from(delete.using.as_deref().unwrap_or_default(), &mut conditions);
        self.settle(target.name);
        let Some((name, relation)) = self.resolve(target.name) else { return self.unknown_target() };
        let keys = self.compared(name, relation, &target, &conditions);
        let events = Events { delete: true, ..Events::default() };
        self.write(name, events, &keys);
        self.changes(name, events, None);
        self.level(&others, &conditions);
    }

    pub(super) fn merge(&mut self, merge: &Merge) {
        let Some(target) = Named::of(self.dialect, &merge.table) else {
            return self.touched.whole(Mode::Write, NO_TARGET);
        };
        self.settle(target.name);
        let Some((name, _)) = self.resolve(target.name) else { return self.unknown_target() };
        self.write(name, Events::ALL, &all_rows("`merge` finds its rows by a condition"));
        self.changes(name, Events::ALL, None);
    }

    /// The columns that are set, with the value where each has one of its own: also those that the database computes.
    fn assigned<'q>(&self, name: &Name, assignments: &'q [Assignment]) -> Vec<(String, Vec<&'q Expr>)> {
        let mut set = Vec::new();
        for assignment in assignments {
            match (&assignment.target, &assignment.value) {
                (AssignmentTarget::ColumnName(column), value) => {
                    set.extend(names::last(self.dialect, column).map(|column| (column, vec![value])));
                }
                (AssignmentTarget::Tuple(columns), value) => {
                    let values = if let Expr::Tuple(values) = value { values.as_slice() } else { &[] };
                    for (at, column) in columns.iter().enumerate() {
                        let column = names::last(self.dialect, column);
                        set.extend(column.map(|column| (column, values.get(at).into_iter().collect())));
                    }
                }
            }
        }
        let relation = self.catalog.and_then(|catalog| catalog.relations.get(name));
        if let Some(relation) = relation
            && set.iter().any(|(column, _)| self.is_row_number(relation, column))
        {
            // With it every key that may be it; where none is, it has to be unique too.
            set.extend(relation.primary_key.iter().map(|key| (key.clone(), Vec::new())));
        }
        set.extend(self.generated(name).map(|column| (column.to_owned(), Vec::new())));
        set
    }

    /// A target that was not found is a write, whatever was noted while it was looked for.
    fn unknown_target(&mut self) {
        self.touched.whole(Mode::Write, "the table that is written is not known");
    }
}

/// Why rows of different primary keys can stand in each other's way.
fn other_unique(catalog: &Catalog, name: &Name, keyed: &Relation) -> Option<String> {
    let holds_key = |columns: &[String]| keyed.primary_key.iter().all(|column| columns.contains(column));
    for (_, member) in catalog.family(name) {
        for unique in &member.uniques {
            match unique {
                None => return Some("a unique index or an exclusion holds more than its columns".to_owned()),
                Some(columns) if !holds_key(columns) => return Some(unique_too(columns)),
                Some(_) => {}
            }
        }
        if !member.primary_key.is_empty() && !holds_key(&member.primary_key) {
            return Some(unique_too(&member.primary_key));
        }
    }
    None
}

fn unique_too(columns: &[String]) -> String {
    format!("`{}` has to be unique too", columns.join("`, `"))
}
