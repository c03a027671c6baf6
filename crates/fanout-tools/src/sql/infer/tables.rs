//! What comes with reading or writing a table: the tables behind a view, the policies in front of it, its triggers, and the
//! rows at the other ends of its foreign keys.
//!
//! From `walk`, which says what a statement does to which table. To `touched`.

use fanout_core::effects::Mode;
use sqlparser::ast::Expr;

use super::catalog::{Action, Column, Events, Function, Kind, Name, Reference, Relation, Uses, Volatility};
use super::functions;
use super::keys::{Keys, Making};
use super::walk::Walk;

/// Columns that a statement sets, with the value for each row where that is known.
pub(super) type Values<'a> = Vec<(&'a str, Vec<&'a Expr>)>;

/// Why no rows are named.
pub(super) fn all_rows<T>(reason: &str) -> Result<T, String> {
    Err(reason.to_owned())
}

impl<'a> Walk<'a, '_> {
    /// Reads, or with `Mode::Write` locks, the rows of a relation.
    pub(super) fn read(&mut self, mode: Mode, name: &'a Name, keys: &Keys) {
        let Some(relation) = self.catalog.and_then(|catalog| catalog.relations.get(name)) else {
            return self.touched.whole(Mode::Write, &format!("`{name}` is not known"));
        };
        match relation.kind {
            Kind::Table => {
                let (root, keys) = (self.root(name), keys.clone());
                self.touched.table(mode, &root, &keys);
                self.touched.reads_beside = true;
                self.uses(Mode::Read, &format!("a policy or cast of `{name}`"), &relation.beside);
            }
            Kind::View => self.view(mode, name, relation),
            Kind::Outside => self.touched.whole(mode, &format!("`{name}` stands for something else")),
            Kind::Sequence => self.touched.whole(Mode::Write, &format!("`{name}` is a sequence")),
        }
    }

    fn view(&mut self, mode: Mode, name: &'a Name, view: &'a Relation) {
        if !self.enter(&format!("{mode:?} of view"), name) {
            return;
        }
        self.uses(mode, &format!("view `{name}`"), &view.query);
        if let Some(definition) = &view.definition
            && !self.inside(mode, definition)
        {
            self.touched.whole(mode, &format!("view `{name}` is not understood"));
        }
    }

    /// Everything that a view, a policy or a default reads and calls.
    fn uses(&mut self, mode: Mode, what: &str, uses: &'a Uses) {
        for name in &uses.relations {
            if self.enter(&format!("{mode:?} by {what}"), name) {
                self.read(mode, name, &all_rows(&format!("it is read by {what}")));
            }
        }
        for function in &uses.functions {
            let overloads = self.catalog.and_then(|catalog| catalog.functions.get(function));
            match overloads {
                Some(overloads) => self.call_all(function, overloads.iter().collect()),
                None => self.touched.whole(Mode::Write, &format!("{what} calls `{function}`, which is not known")),
            }
        }
    }

    /// Calls the worst of these functions of one name.
    pub(super) fn call_all(&mut self, name: &Name, overloads: Vec<&'a Function>) {
        for function in overloads {
            let harmless = function.language == "c" && functions::is_harmless(&name.name);
            if function.volatility == Volatility::Immutable || harmless || !self.enter("function", name) {
                continue;
            }
            let what = format!("function `{name}`");
            match (&function.body, function.volatility) {
                (Some(body), _) if self.inside(Mode::Read, body) => {}
                (_, Volatility::Stable) => self.touched.whole(Mode::Read, &format!("{what} may read any table")),
                _ => self.touched.whole(Mode::Write, &format!("{what} is volatile: it may write any table")),
            }
            self.leave("function", name);
        }
    }

    /// Writes rows of a relation: what runs on it, what its policies read, and the rows themselves.
    pub(super) fn write(&mut self, name: &'a Name, events: Events, keys: &Keys) {
        let Some(catalog) = self.catalog else {
            return self.touched.whole(Mode::Write, "the database could not be asked about its tables");
        };
        let Some(relation) = catalog.relations.get(name) else {
            return self.touched.whole(Mode::Write, &format!("`{name}` is not known"));
        };
        if events.update || events.delete {
            self.touched.finds_otherwise |= keys.is_err();
            self.touched.finds_several |= keys.as_ref().is_ok_and(|rows| !rows.is_one);
        }
        for (member, relation) in catalog.family(name) {
            if let Some(trigger) = relation.triggers.iter().find(|trigger| trigger.on.meet(events)) {
                self.touched
                    .whole(Mode::Write, &format!("trigger `{}` on `{member}` may write any table", trigger.name));
            }
            if events.insert || events.update {
                self.uses(Mode::Write, &format!("a default or check of `{member}`"), &relation.on_write);
            }
        }
        match relation.kind {
            Kind::Table => {
                let root = self.root(name);
                self.touched.table(Mode::Write, &root, keys);
                self.uses(Mode::Read, &format!("a policy or cast of `{name}`"), &relation.beside);
            }
            Kind::View if relation.query.relations.is_empty() => {
                self.touched.whole(Mode::Write, &format!("view `{name}` cannot be followed"));
            }
            Kind::View => {
                self.view(Mode::Read, name, relation);
                for base in &relation.query.relations {
                    if self.enter(&format!("{events:?} of written view"), base) {
                        let events = match events.update {
                            true => self.update_of(base, |_| true).or(events),
                            false => events,
                        };
                        self.write(base, events, &all_rows(&format!("it is written through view `{name}`")));
                        self.changes(base, events, None);
                    }
                }
            }
            Kind::Outside | Kind::Sequence => {
                self.touched.whole(Mode::Write, &format!("`{name}` stands for something else"));
            }
        }
    }

    /// Follows the foreign keys of a table both ways: to the rows that its own must point at, and to the rows that point at
    /// them. `values`: what an insert or update sets; `None`: any column.
    pub(super) fn changes(&mut self, name: &'a Name, events: Events, values: Option<&Values<'_>>) {
        let Some(catalog) = self.catalog else { return };
        if events.insert || events.update {
            for (_, relation) in catalog.family(name) {
                for reference in &relation.references {
                    self.points_at(relation, reference, events, values);
                }
            }
        }
        if events.update || events.delete {
            for (from, reference) in catalog.pointing_at(name) {
                let sets = |column: &str| values.is_none_or(|set| set.iter().any(|(name, _)| *name == column));
                let moves =
                    events.update && target_columns(catalog.relations.get(&reference.target), reference).any(sets);
                if moves {
                    self.happens(
                        from,
                        reference,
                        reference.on_update,
                        Events { update: true, ..Events::default() },
                        name,
                    );
                }
                if events.delete {
                    self.happens(
                        from,
                        reference,
                        reference.on_delete,
                        Events { delete: true, ..Events::default() },
                        name,
                    );
                }
            }
        }
    }

    /// Reads the row that a foreign key's new value points at.
    fn points_at(&mut self, from: &'a Relation, to: &'a Reference, events: Events, values: Option<&Values<'_>>) {
        let is_set = |column: &String| values.is_none_or(|set| set.iter().any(|(name, _)| name == column));
        let has_default = |column: &String| from.column(column).is_some_and(|column| column.has_default);
        if !to.columns.iter().any(|column| is_set(column) || events.insert && has_default(column)) {
            return;
        }
        let Some(catalog) = self.catalog else { return };
        let target = self.root(&to.target);
        let keys = match (catalog.relations.get(&to.target), values) {
            (Some(parent), Some(set)) if to.columns.iter().all(is_set) => {
                self.parent_keys(from, to, parent, &target, set)
            }
            _ => all_rows("a foreign key points at it"),
        };
        self.touched.table(
            Mode::Read,
            &target,
            &keys.map_err(|reason| format!("a foreign key points at it, and {reason}")),
        );
    }

    /// The rows of the other table that the values name, if the foreign key holds its primary key in the same spelling.
    fn parent_keys(
        &self,
        from: &'a Relation,
        to: &'a Reference,
        parent: &'a Relation,
        target: &str,
        set: &Values<'_>,
    ) -> Keys {
        let mut values: Values<'_> = Vec::new();
        for (mine, theirs) in to.columns.iter().zip(target_columns(Some(parent), to)) {
            let (from, into) = (from.column(mine), parent.column(theirs));
            let same = |one: &Column, other: &Column| one.form == other.form && !one.is_limited;
            if !from.zip(into).is_some_and(|(from, into)| same(from, into)) {
                return all_rows("its columns are of another kind");
            }
            let given = set.iter().find(|(name, _)| name == mine).map(|(_, given)| given.clone());
            values.push((theirs, given.unwrap_or_default()));
        }
        if values.len() != parent.primary_key.len() {
            return all_rows("not at its primary key");
        }
        // The other table is looked up and not written, so nothing is cut to fit there.
        let columns = parent.columns.iter().map(|column| Column { is_limited: false, ..column.clone() }).collect();
        let parent = Relation { columns, primary_key: parent.primary_key.clone(), ..Relation::default() };
        let database = self.touched.database();
        Making { dialect: self.dialect, table: ["sql", database, target], parameters: self.parameters }
            .given(&parent, &values)
    }

    /// What a foreign key does to the rows that point at a row that goes or changes.
    fn happens(&mut self, from: &'a Name, reference: &'a Reference, action: Action, on: Events, name: &Name) {
        let reason = format!("a foreign key of it points at `{name}`");
        match action {
            Action::Refuse => {
                let root = self.root(from);
                self.touched.table(Mode::Read, &root, &all_rows(&reason));
            }
            Action::Cascade | Action::Clear => {
                let deletes = on.delete && action == Action::Cascade;
                let columns = reference.columns.iter().map(String::as_str).chain(self.generated(from));
                let set: Values<'_> = columns.map(|column| (column, Vec::new())).collect();
                let events = match deletes {
                    true => Events { delete: true, ..Events::default() },
                    false => {
                        let update = self.update_of(from, |column| set.iter().any(|(name, _)| *name == column));
                        Events { delete: update.delete || self.replaces(from), ..update }
                    }
                };
                if self.enter(&format!("{events:?} of {:?}", reference.columns), from) {
                    self.write(from, events, &all_rows(&reason));
                    self.changes(from, Events { insert: false, ..events }, (!events.delete).then_some(&set));
                }
            }
        }
    }

    /// What an update of these columns does: it can move rows to another partition, which takes them out here and puts them in
    /// there.
    pub(super) fn update_of(&self, name: &'a Name, is_set: impl Fn(&str) -> bool) -> Events {
        let is_moved = |column: &Column| column.is_partitioning && is_set(&column.name);
        let moves = self.catalog.is_some_and(|catalog| catalog.columns(name).any(is_moved));
        Events { insert: moves, update: true, delete: moves }
    }

    /// Whether a write of this table may put away rows that it meets, without the statement saying so.
    pub(super) fn replaces(&self, name: &'a Name) -> bool {
        self.catalog.is_some_and(|catalog| catalog.family(name).any(|(_, member)| member.replaces))
    }

    /// The columns that the database computes anew at every update.
    pub(super) fn generated(&self, name: &'a Name) -> impl Iterator<Item = &'a str> {
        let columns = self.catalog.into_iter().flat_map(move |catalog| catalog.columns(name));
        columns.filter(|column| column.is_generated).map(|column| column.name.as_str())
    }

    /// A table as it stands in keys: its root.
    pub(super) fn root(&self, name: &Name) -> String {
        self.catalog.map_or_else(|| name.to_string(), |catalog| catalog.root(name).to_string())
    }
}

fn target_columns<'a>(target: Option<&'a Relation>, reference: &'a Reference) -> impl Iterator<Item = &'a str> {
    let own = reference.target_columns.is_empty().then(|| target.map(|target| target.primary_key.as_slice())).flatten();
    own.unwrap_or(&reference.target_columns).iter().map(String::as_str)
}
