//! One transaction, from BEGIN to its end.
//!
//! From the pool: a connection. To the call: rows, or what went wrong. The connection goes back only as it was: one whose
//! transaction did not end as it should is closed.
//!
//! Each word is sent when the one before it has been answered well: nothing can run outside of the transaction, or without
//! the user's role.

use std::sync::Arc;
use std::time::Duration;

use fanout_core::outcome::Output;
use fanout_core::tool::ToolError;
use futures_util::TryStreamExt;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage};

use super::Postgres;
use super::failure::{before_commit, connecting, disproves_commit, innermost};
use super::progress::Progress;
use super::session::Session;
use super::statements::Statements;
use super::value::Text;
use crate::sql::once::{Claimed, OutcomeRow};
use crate::sql::pool::Place;
use crate::sql::transaction::Rows;
use crate::sql::unit::{Kept, Member, Unit};
use crate::sql::user::User;

/// A transaction whose COMMIT nobody answered is asked for so often, while it still goes on.
const FATE_ASKED: u32 = 20;

/// And so long it is waited in between.
const FATE_PAUSE: Duration = Duration::from_millis(250);

/// What became of a transaction, and when the server was started: one that was started since, or another, cannot be trusted
/// to mean the same by the number.
const FATE: &str = "select txid_status($1::bigint)::text, pg_postmaster_start_time()::text";

/// What is done in one transaction, and for whom.
pub(super) struct Carrying {
    pub(super) postgres: Arc<Postgres>,
    pub(super) unit: Arc<Unit>,
    pub(super) user: Option<User>,
    pub(super) progress: Arc<Progress>,
}

/// What came of all that stands between BEGIN and COMMIT.
enum Worked {
    /// What each member came to.
    Done(Vec<Output>),
    /// The same of an attempt before this one: nothing was done now.
    Before(Vec<Output>),
}

/// Which transaction it is, to a server that is asked later.
struct Which {
    number: String,
    server: String,
}

impl Carrying {
    pub(super) async fn run(self, place: Place<Session>) -> Result<Vec<Output>, ToolError> {
        let begun = timeout(self.unit.begin_max(), self.begun(&place)).await;
        let (session, number) = begun.unwrap_or_else(|_| Err(self.unit.not_begun("no connection to")))?;
        let client = &session.client;
        let ended = match self.work(client).await {
            // It was ended with its last statement.
            Ok(Worked::Done(outputs)) if self.unit.reads_only() => Ok(outputs),
            Ok(Worked::Done(outputs)) => {
                let which = number.map(|number| Which { number, server: session.started.clone() });
                self.commit(client, outputs, which).await
            }
            Ok(Worked::Before(outputs)) => {
                self.end(client, "ROLLBACK").await;
                Ok(outputs)
            }
            Err(error) => {
                self.end(client, "ROLLBACK").await;
                Err(error)
            }
        };
        if !self.progress.is_spoilt() {
            place.keep(session);
        }
        ended
    }

    /// Ends a transaction that has nothing to keep. A connection on which that cannot be done is not used again.
    pub(super) async fn end(&self, client: &Client, how: &str) {
        if !self.progress.is_spoilt() && client.batch_execute(how).await.is_err() {
            self.progress.spoil();
        }
    }

    /// Keeps what was written, and knows afterwards whether it was kept.
    async fn commit(
        &self,
        client: &Client,
        outputs: Vec<Output>,
        which: Option<Which>,
    ) -> Result<Vec<Output>, ToolError> {
        self.progress.commits();
        let Err(error) = client.batch_execute("COMMIT").await else { return Ok(outputs) };
        self.progress.spoil();
        match which {
            _ if disproves_commit(&error) => Err(self.failed(self.who(), &error)),
            Some(which) => self.fate(&which, outputs, &error).await,
            None => Err(self.unknown(&error)),
        }
    }

    /// What became of a transaction whose COMMIT was not answered, asked on another connection.
    async fn fate(&self, which: &Which, outputs: Vec<Output>, lost: &Error) -> Result<Vec<Output>, ToolError> {
        for _ in 0..FATE_ASKED {
            if let Ok(session) = Session::open(&self.postgres.address).await {
                let number = Text(Some(which.number.clone()));
                let row = one(&session.client, FATE, vec![(number, Type::TEXT)]).await;
                let Ok(Some(row)) = row else { break };
                let text = |at| row.try_get::<_, Option<String>>(at).ok().flatten().unwrap_or_default();
                if text(1) != which.server {
                    break;
                }
                match text(0).as_str() {
                    "committed" => return Ok(outputs),
                    "aborted" => return Err(before_commit(self.who(), lost)),
                    "in progress" => {}
                    _ => break,
                }
            }
            tokio::time::sleep(FATE_PAUSE).await;
        }
        Err(self.unknown(lost))
    }

    fn unknown(&self, lost: &Error) -> ToolError {
        let why = innermost(lost);
        ToolError::Broken(format!("{} lost its database while that was keeping what it wrote: {why}", self.who()))
    }

    /// What an error means before anything could be kept.
    pub(super) fn failed(&self, who: &str, error: &Error) -> ToolError {
        if error.as_db_error().is_none() || leaves_names(error) {
            self.progress.spoil();
        }
        if error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "42")) {
            self.postgres.types.forget(&self.unit);
        }
        before_commit(who, error)
    }

    fn who(&self) -> &str {
        &self.unit.who
    }

    /// A connection in a transaction. One that was kept may have been closed meanwhile; then there is another.
    /// The number that the server gave it is known from the start, where it may write.
    async fn begun(&self, place: &Place<Session>) -> Result<(Session, Option<String>), ToolError> {
        let begin = self.begin();
        while let Some(session) = place.kept() {
            if session.client.is_closed() {
                continue;
            }
            self.progress.runs_on(session.canceller(&self.postgres.address));
            match numbered(&session.client, &begin).await {
                Ok(number) => return Ok((session, number)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(self.failed(self.who(), &error)),
            }
        }
        let opened = Session::open(&self.postgres.address).await;
        let session = opened.map_err(|error| connecting(self.who(), &error))?;
        self.progress.runs_on(session.canceller(&self.postgres.address));
        let number = numbered(&session.client, &begin).await.map_err(|error| self.failed(self.who(), &error))?;
        Ok((session, number))
    }

    /// One message, so that neither of the two is without the other.
    fn begin(&self) -> String {
        let reads_only = self.unit.reads_only();
        let mode = match (reads_only, self.unit.statements()) {
            // One statement sees one moment as it is.
            (true, 1) => "ISOLATION LEVEL READ COMMITTED READ ONLY",
            (true, _) => "ISOLATION LEVEL REPEATABLE READ READ ONLY",
            (false, _) if self.unit.locks_what_it_reads() => "ISOLATION LEVEL READ COMMITTED READ WRITE",
            (false, _) => "ISOLATION LEVEL SERIALIZABLE READ WRITE",
        };
        let first = self.unit.transactions().next().map(|first| limit(first.statement_timeout)).unwrap_or_default();
        let number = if reads_only { "" } else { "select txid_current()" };
        format!("BEGIN {mode}; {first}{number}")
    }

    /// All that stands between BEGIN and COMMIT.
    async fn work(&self, client: &Client) -> Result<Worked, ToolError> {
        let claimed = match &self.unit.row {
            Some(row) => Some((row, self.claim(client, row).await?)),
            None => None,
        };
        if let Some((row, Claimed::Before(text))) = &claimed {
            return self.unit.before(row, text).map(Worked::Before);
        }
        if let Some(user) = &self.user {
            self.become_user(client, user).await?;
        }
        let (mut kept, mut outputs) = (Kept::default(), Vec::with_capacity(self.unit.members.len()));
        for at in 0..self.unit.members.len() {
            kept.next();
            let rows = self.member(client, at, &mut kept).await?;
            outputs.push(self.unit.answered(&rows)?);
        }
        if let Some((row, Claimed::At(place))) = claimed {
            self.keep(client, row, place, &mut outputs).await?;
        }
        Ok(Worked::Done(outputs))
    }

    /// Looks whether the call was carried out before, and has whoever else is at it wait.
    async fn claim(&self, client: &Client, row: &OutcomeRow) -> Result<Claimed, ToolError> {
        match self.texts(client, row.once.claim, &row.key).await.map_err(|error| self.unclaimed(&error))? {
            Some(place) => Ok(Claimed::At(place)),
            None => {
                let found = self.texts(client, row.once.find, &row.key).await;
                let found = found.map_err(|error| self.unclaimed(&error))?;
                found.map(Claimed::Before).ok_or_else(|| OutcomeRow::vanished(self.who()))
            }
        }
    }

    /// Fills the row. An end user has no right to it: the role is put off for that, and on again, since what is deferred to
    /// COMMIT is the user's.
    async fn keep(
        &self,
        client: &Client,
        row: &OutcomeRow,
        place: String,
        outputs: &mut [Output],
    ) -> Result<(), ToolError> {
        let text = row.text(outputs);
        if self.user.is_some() {
            let set = client.batch_execute("SET LOCAL ROLE NONE").await;
            set.map_err(|error| self.failed(self.who(), &error))?;
        }
        self.texts(client, row.once.keep, &[place, text]).await.map_err(|error| self.unclaimed(&error))?;
        match &self.user {
            Some(user) => self.become_user(client, user).await,
            None => Ok(()),
        }
    }

    /// Runs a statement on texts; answers with the first value of its first row.
    async fn texts(&self, client: &Client, statement: &str, values: &[String]) -> Result<Option<String>, Error> {
        let values = values.iter().map(|value| (Text(Some(value.clone())), Type::TEXT)).collect();
        one(client, statement, values).await?.map(|row| row.try_get(0)).transpose()
    }

    /// What an error at the row of the outcome means: nothing of this attempt is kept.
    fn unclaimed(&self, error: &Error) -> ToolError {
        let who = self.who();
        match error.code() {
            // What the other attempt comes to is not known.
            Some(code) if [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(code) => {
                ToolError::Broken(format!("another attempt at {who} was still going on in its database"))
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => ToolError::NotPermitted(format!(
                "{who} may not keep its outcome in the journal, so nothing was done: the user of its database needs usage of \
                 the schema `fanout`, and select, insert and update of `fanout.outcome`"
            )),
            _ => self.failed(who, error),
        }
    }

    /// The statements of one member. One that only reads is held to that also where others write.
    async fn member(&self, client: &Client, at: usize, kept: &mut Kept) -> Result<Vec<Rows>, ToolError> {
        let members = &self.unit.members;
        let member = &members[at];
        let input = self.unit.input(at)?;
        let reads_only = self.unit.reads_only();
        let is_held = member.transaction.reads_only && !reads_only;
        let before = at.checked_sub(1).map_or(member, |before| &members[before]);
        let mut words = String::new();
        if before.transaction.statement_timeout != member.transaction.statement_timeout {
            words += &limit(member.transaction.statement_timeout);
        }
        if is_held {
            // The mode that is set behind a savepoint ends with it.
            words += "SAVEPOINT reading; SET TRANSACTION READ ONLY;";
        }
        self.say(client, member, &words).await?;
        let ends = reads_only && at + 1 == members.len();
        let rows = Statements { carrying: self, client, member, input: &input, ends }.run(kept).await?;
        self.say(client, member, if is_held { "RELEASE SAVEPOINT reading" } else { "" }).await?;
        Ok(rows)
    }

    /// Says something that has no answer; nothing, if there is nothing to say.
    async fn say(&self, client: &Client, member: &Member, words: &str) -> Result<(), ToolError> {
        match words {
            "" => Ok(()),
            words => client.batch_execute(words).await.map_err(|error| self.failed(&member.who, &error)),
        }
    }

    /// The role and the claims hold until the transaction's end, and for nobody after it.
    async fn become_user(&self, client: &Client, user: &User) -> Result<(), ToolError> {
        let set = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";
        let values = [&*user.role, &*user.claims].map(|value| (Text(Some(value.to_owned())), Type::TEXT));
        let set = async { client.query_typed_raw(set, values).await?.try_collect::<Vec<_>>().await };
        set.await.map(drop).map_err(|error| match error.as_db_error() {
            Some(db) if refuses(db.code()) => ToolError::NotPermitted(format!(
                "{} acts in the name of an end user, and the database does not let it be `{}`: {}. Nothing was done",
                self.who(),
                user.role,
                db.message()
            )),
            _ => self.failed(self.who(), &error),
        })
    }
}

/// How long each statement from here on may take.
fn limit(timeout: Duration) -> String {
    format!("SET LOCAL statement_timeout = {};", timeout.as_millis().max(1))
}

/// Whether a connection that was kept is gone: no answer, or the last word of a server that ends it (class 57P: shut down, idle for
/// too long). It may come only now, and nothing was begun on it: there is another.
fn is_gone(error: &Error) -> bool {
    error.as_db_error().is_none() || error.code().is_some_and(|code| code.code().starts_with("57P"))
}

/// Runs what begins a transaction, and hands on its number if that was asked for.
async fn numbered(client: &Client, begin: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(begin).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// The first row that a statement gives.
async fn one(client: &Client, statement: &str, values: Vec<(Text, Type)>) -> Result<Option<Row>, Error> {
    let rows = client.query_typed_raw(statement, values).await?;
    Ok(rows.try_collect::<Vec<_>>().await?.into_iter().next())
}

/// Whether a server that was to take on a role says that there is none such or that it may not: classes 22 and 42, invalid
/// values and access rules. Of others, such as too little memory, the role has no fault.
fn refuses(code: &SqlState) -> bool {
    matches!(&code.code()[..2], "22" | "42")
}

/// Whether a prepared statement of ours is not where we are, or another client's is in its place: behind a pooler, which
/// hands out the connections of the server one transaction at a time.
fn leaves_names(error: &Error) -> bool {
    let of_names = [SqlState::DUPLICATE_PSTATEMENT, SqlState::INVALID_SQL_STATEMENT_NAME];
    error.code().is_some_and(|code| of_names.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_role_that_is_refused_is_the_end_users_matter() {
        for (code, is_refused) in [
            (SqlState::INSUFFICIENT_PRIVILEGE, true),
            (SqlState::INVALID_PARAMETER_VALUE, true),
            (SqlState::UNDEFINED_OBJECT, true),
            (SqlState::ADMIN_SHUTDOWN, false),
            (SqlState::QUERY_CANCELED, false),
            (SqlState::OUT_OF_MEMORY, false),
            (SqlState::IN_FAILED_SQL_TRANSACTION, false),
        ] {
            assert_eq!(refuses(&code), is_refused, "{code:?}");
        }
    }
}
