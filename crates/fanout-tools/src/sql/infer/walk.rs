//! One statement, from its text to everything that it touches.
//!
//! From the parsed statement, all of whose parts `sqlparser` visits. To `tables`, which follows each table further.
//!
//! What has a shape of its own (the tables of one `FROM`, the target of a write) is handled when its part is entered. Every
//! table name that nothing of that accounted for is read as a whole, so that no corner of the grammar is left out.

use std::collections::HashSet;
use std::ops::ControlFlow;

use fanout_core::effects::Mode;
use sqlparser::ast::{
    AccessExpr, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SetExpr,
    Statement as Parsed, TableFactor, TableWithJoins, Visit, Visitor, visit_statements,
};
use sqlparser::dialect::{Dialect as Grammar, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;

use super::catalog::{Catalog, Mention, Name, Relation};
use super::functions;
use super::keys::{Conditions, Keys, Making};
use super::names::{self, Named};
use super::tables::all_rows;
use super::touched::Touched;
use crate::sql::{Dialect, Statement};

/// Why nothing is known of any table.
const UNREACHABLE: &str = "the database could not be asked about its tables";

/// A statement on its way through.
pub(super) struct Walk<'a, 't> {
    pub(super) dialect: Dialect,
    pub(super) catalog: Option<&'a Catalog>,
    /// The names of the parameters, by number.
    pub(super) parameters: &'a [String],
    pub(super) touched: &'t mut Touched,
    /// What reading a table here is: inside of something that locks, locking.
    mode: Mode,
    /// How many queries around this place lock what they read.
    locking: usize,
    /// Queries with a name, which are no tables.
    named_queries: HashSet<String>,
    /// Table names that are accounted for, by where they stand in memory.
    settled: HashSet<usize>,
    /// What was followed already, so that nothing is followed in a circle.
    followed: HashSet<(String, Name)>,
}

/// Adds what one statement of a tool touches.
pub(super) fn statement(statement: &Statement, catalog: Option<&Catalog>, touched: &mut Touched) {
    let dialect = statement.dialect();
    match parse(dialect, statement.text()) {
        Some(parsed) => {
            let mut walk = Walk {
                dialect,
                catalog,
                parameters: statement.parameters(),
                touched,
                mode: Mode::Read,
                locking: 0,
                named_queries: HashSet::new(),
                settled: HashSet::new(),
                followed: HashSet::new(),
            };
            walk.mentions(statement.text(), false);
            let _: ControlFlow<()> = parsed.visit(&mut walk);
        }
        None => touched.whole(Mode::Write, "a statement is not understood"),
    }
}

/// Exactly one statement, or nothing.
pub(super) fn parse(dialect: Dialect, text: &str) -> Option<Parsed> {
    let grammar: &dyn Grammar = match dialect {
        Dialect::Postgres => &PostgreSqlDialect {},
        Dialect::Sqlite => &SQLiteDialect {},
    };
    let mut parsed = Parser::parse_sql(grammar, text).ok()?;
    let only = parsed.pop();
    only.filter(|_| parsed.is_empty())
}

/// Whether a statement adds, changes or removes rows by itself, at its beginning or in any part of it: not by a function that
/// it calls.
pub(in crate::sql) fn changes_rows(statement: &Statement) -> bool {
    let writes = |parsed: &Parsed| match parsed {
        Parsed::Insert(_) | Parsed::Update(_) | Parsed::Delete(_) | Parsed::Merge(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let parsed = || parse(statement.dialect(), statement.text());
    statement.plainly_writes() || parsed().is_some_and(|parsed| visit_statements(&parsed, writes).is_break())
}

impl<'a> Walk<'a, '_> {
    /// Walks the query of a view or a function, whose parameters nobody here knows. Answers whether it could.
    pub(super) fn inside(&mut self, mode: Mode, text: &str) -> bool {
        let query = match parse(self.dialect, text) {
            Some(Parsed::Query(query)) => query,
            Some(Parsed::CreateView(view)) => view.query,
            _ => return false,
        };
        let mut inner = Walk {
            dialect: self.dialect,
            catalog: self.catalog,
            parameters: &[],
            touched: &mut *self.touched,
            mode,
            locking: 0,
            named_queries: HashSet::new(),
            settled: HashSet::new(),
            followed: std::mem::take(&mut self.followed),
        };
        inner.mentions(text, false);
        let _: ControlFlow<()> = query.visit(&mut inner);
        self.followed = inner.followed;
        true
    }

    /// Whether this is to be followed: the first time that it is met on this way.
    pub(super) fn enter(&mut self, what: &str, name: &Name) -> bool {
        self.followed.insert((what.to_owned(), name.clone()))
    }

    pub(super) fn leave(&mut self, what: &str, name: &Name) {
        self.followed.remove(&(what.to_owned(), name.clone()));
    }

    pub(super) fn settle(&mut self, name: &ObjectName) {
        self.settled.insert(std::ptr::from_ref(name).addr());
    }

    fn mode(&self) -> Mode {
        if self.locking > 0 { Mode::Write } else { self.mode }
    }

    /// The relation that a name means. Where it means none, what that comes to is noted.
    pub(super) fn resolve(&mut self, name: &ObjectName) -> Option<(&'a Name, &'a Relation)> {
        let Some(catalog) = self.catalog else {
            self.touched.whole(self.mode(), UNREACHABLE);
            return None;
        };
        let Some((schema, bare)) = names::split(self.dialect, name) else {
            self.touched.whole(Mode::Write, &format!("`{name}` is not understood"));
            return None;
        };
        if schema.is_none() && catalog.depends_on_role(&bare) {
            self.touched.whole(Mode::Write, &format!("`{bare}` is another table for another role: name its schema"));
            return None;
        }
        let found = catalog.relation(schema.as_deref(), &bare);
        if found.is_none() && !(schema.is_none() && self.named_queries.contains(&bare)) {
            let of_system = match schema.as_deref() {
                Some(schema) => matches!(schema, "pg_catalog" | "information_schema"),
                None => bare.starts_with("pg_") || bare.starts_with("sqlite_"),
            };
            if of_system {
                self.touched.whole(self.mode(), &format!("`{name}` is about all of it"));
            } else {
                self.touched.whole(Mode::Write, &format!("table `{name}` is not known"));
            }
        }
        found
    }

    /// Reads the tables of one `FROM`, each by its key where the conditions of this level name one.
    pub(super) fn level(&mut self, factors: &[&TableFactor], conditions: &Conditions<'_>) {
        for factor in factors {
            let Some(named) = Named::of(self.dialect, factor) else { continue };
            self.settle(named.name);
            let Some((name, relation)) = self.resolve(named.name) else { continue };
            let keys = self.compared(name, relation, &named, conditions);
            self.read(self.mode(), name, &keys);
        }
    }

    pub(super) fn compared(
        &self,
        name: &'a Name,
        relation: &'a Relation,
        named: &Named<'_>,
        conditions: &Conditions<'_>,
    ) -> Keys {
        let table = self.root(name);
        let relation = self.keyed_by(name, relation);
        let making = Making {
            dialect: self.dialect,
            table: ["sql", self.touched.database(), &table],
            parameters: self.parameters,
        };
        making.compared(relation, named.called.as_deref(), conditions)
    }

    /// The relation whose primary key names rows: of partitions and children their root.
    pub(super) fn keyed_by(&self, name: &'a Name, relation: &'a Relation) -> &'a Relation {
        self.catalog.and_then(|catalog| catalog.relations.get(catalog.root(name))).unwrap_or(relation)
    }

    /// Calls a function by its name in the statement.
    fn call(&mut self, name: &ObjectName) {
        let Some((schema, bare)) = names::split(self.dialect, name) else {
            return self.touched.whole(Mode::Write, &format!("function `{name}` is not understood"));
        };
        let own = matches!(schema.as_deref(), None | Some("pg_catalog"));
        if own && functions::is_of_the_connection(self.dialect, &bare) {
            if !self.touched.has_added {
                self.touched.whole(Mode::Write, &format!("`{bare}` tells of what other calls did on the connection"));
            }
            return;
        }
        let Some(catalog) = self.catalog.filter(|_| self.dialect == Dialect::Postgres) else {
            let plain = match self.dialect {
                Dialect::Postgres => functions::is_plain(&bare),
                Dialect::Sqlite => functions::is_plain_in_sqlite(&bare),
            };
            if !(own && (plain || functions::is_harmless(&bare))) {
                self.touched.whole(Mode::Write, &format!("function `{name}` is not known"));
            }
            return;
        };
        let found = catalog.functions(schema.as_deref(), &bare);
        if found.is_empty() && !own {
            return self.touched.whole(Mode::Write, &format!("function `{name}` is not known"));
        }
        if own && functions::reads_by_name(&bare) {
            self.touched.whole(Mode::Read, &format!("function `{name}` may read any table"));
        } else if own && catalog.volatile_builtins.contains(&bare) && !functions::is_harmless(&bare) {
            self.touched.whole(Mode::Write, &format!("function `{name}` may change what other calls see"));
        }
        self.call_all(&Name::new(schema.unwrap_or_else(|| "public".to_owned()), bare), found);
    }

    /// PostgreSQL takes `row.name` for a call of a function where the row has no column that is called so. Another table may
    /// have one.
    fn call_as_column(&mut self, column: &Ident) {
        let Some(catalog) = self.catalog else { return };
        let name = names::folded(self.dialect, column);
        let found = catalog.functions(None, &name).into_iter().filter(|function| function.of_row).collect();
        self.call_all(&Name::new("public", name), found);
    }

    /// Follows what stands in a text and calls functions, though it is not their name. `in_cast`: the text is a type.
    fn mentions(&mut self, text: &str, in_cast: bool) {
        let Some(catalog) = self.catalog else { return };
        for Mention { calls, .. } in catalog.mentions.iter().filter(|one| (in_cast || !one.is_row) && one.is_in(text)) {
            let overloads = catalog.functions(Some(&calls.schema), &calls.name);
            self.call_all(calls, overloads);
        }
    }

    /// Every table of a `FROM`, and the conditions that restrict all of it.
    pub(super) fn from<'q>(from: &'q [TableWithJoins], conditions: &mut Conditions<'q>) -> Vec<&'q TableFactor> {
        let mut factors = Vec::new();
        for tables in from {
            Self::factors(&tables.relation, &mut factors);
            for join in &tables.joins {
                Self::factors(&join.relation, &mut factors);
                if let Some(condition) = restricting(join) {
                    conditions.add(condition);
                }
            }
        }
        factors
    }

    fn factors<'q>(factor: &'q TableFactor, factors: &mut Vec<&'q TableFactor>) {
        if let TableFactor::NestedJoin { table_with_joins, alias } = factor {
            // With a name of their own the tables inside can no longer be named from outside.
            if alias.is_none() {
                Self::factors(&table_with_joins.relation, factors);
                table_with_joins.joins.iter().for_each(|join| Self::factors(&join.relation, factors));
                return;
            }
        }
        factors.push(factor);
    }
}

/// The condition of a join that keeps no row which does not meet it.
fn restricting(join: &Join) -> Option<&Expr> {
    match &join.join_operator {
        JoinOperator::Join(JoinConstraint::On(condition)) | JoinOperator::Inner(JoinConstraint::On(condition)) => {
            Some(condition)
        }
        _ => None,
    }
}

impl Visitor for Walk<'_, '_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Parsed) -> ControlFlow<()> {
        match statement {
            Parsed::Query(_) => {}
            Parsed::Insert(insert) => self.insert(insert),
            Parsed::Update(update) => self.update(update),
            Parsed::Delete(delete) => self.delete(delete),
            Parsed::Merge(merge) => self.merge(merge),
            _ => self.touched.whole(Mode::Write, "a statement of another kind than reading or writing rows"),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        self.named_queries.extend(named.map(|one| names::folded(self.dialect, &one.alias.name)));
        self.locking += usize::from(!query.locks.is_empty());
        if has_table_command(&query.body) || !query.pipe_operators.is_empty() {
            self.touched.whole(Mode::Write, "a query is not understood");
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.locking -= usize::from(!query.locks.is_empty());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() {
            self.touched.whole(Mode::Write, "`select into` makes a table");
        }
        let mut conditions = Conditions::default();
        if let Some(selection) = &select.selection {
            conditions.add(selection);
        }
        let factors = Self::from(&select.from, &mut conditions);
        self.level(&factors, &conditions);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                self.settle(name);
                self.call(name);
            }
            TableFactor::Function { name, .. } => self.call(name),
            TableFactor::Table { .. }
            | TableFactor::Derived { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::NestedJoin { .. } => {}
            _ => self.touched.whole(Mode::Write, "a part of a `from` is not understood"),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if !self.settled.contains(&std::ptr::from_ref(name).addr())
            && let Some((name, _)) = self.resolve(name)
        {
            self.read(self.mode(), name, &all_rows("no row of it is named"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => self.call(&function.name),
            Expr::CompoundIdentifier(parts) => parts.iter().skip(1).for_each(|part| self.call_as_column(part)),
            Expr::CompoundFieldAccess { access_chain, .. } => {
                for access in access_chain {
                    if let AccessExpr::Dot(Expr::Identifier(part)) = access {
                        self.call_as_column(part);
                    }
                }
            }
            Expr::Cast { data_type, .. } => self.mentions(&data_type.to_string(), true),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Whether a table stands in place of a query somewhere in it, which the parser does not show as a table.
fn has_table_command(body: &SetExpr) -> bool {
    match body {
        SetExpr::Table(_) => true,
        SetExpr::SetOperation { left, right, .. } => has_table_command(left) || has_table_command(right),
        _ => false,
    }
}
