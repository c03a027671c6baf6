//! One database of a server, and who may use it.
//!
//! From [`Postgres`]. To tests: URLs, one per role, and what a test does to a database behind the back of those who use it.

use super::{Postgres, PostgresError, SUPABASE};

/// A database, and a role made for it that is neither superuser nor owner of anything, and that row-level security binds.
///
/// What the superuser makes in the schema `public` that role may read and write, by default privileges. The database goes
/// with its server.
#[derive(Clone, Debug)]
pub struct Database {
    postgres: Postgres,
    name: String,
    user: String,
}

impl Database {
    pub(super) async fn make(postgres: Postgres, name: String) -> Result<Self, PostgresError> {
        let user = format!("{name}_user");
        postgres.sql("postgres", &format!("create database {name}")).await?;
        let role = format!(
            "create role {user} login password '{}' nosuperuser nocreatedb nocreaterole nobypassrls;
             alter default privileges in schema public grant select, insert, update, delete on tables to {user};
             alter default privileges in schema public grant usage, select on sequences to {user}",
            postgres.password()
        );
        postgres.sql(&name, &role).await?;
        Ok(Self { postgres, name, user })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The role that is nobody in particular.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The URL for [`Database::user`]. It says nothing of TLS: add `?sslmode=…` to it.
    pub fn user_url(&self) -> String {
        self.url(&self.user)
    }

    /// The URL for the superuser, `postgres`, which owns what [`Database::sql`] makes.
    pub fn superuser_url(&self) -> String {
        self.url("postgres")
    }

    /// Runs SQL in it as the superuser: as [`Postgres::sql`].
    ///
    /// # Errors
    /// With what the server said.
    pub async fn sql(&self, text: &str) -> Result<String, PostgresError> {
        self.postgres.sql(&self.name, text).await
    }

    /// From now on the server refuses the database's user unless it comes by TLS.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn demand_tls(&self) -> Result<(), PostgresError> {
        let grant = format!(
            "do $$ begin create role tls_demanded; exception when duplicate_object or unique_violation then null; end $$;
             grant tls_demanded to {}",
            self.user
        );
        self.sql(&grant).await.map(drop)
    }

    /// Breaks every connection to it, as the superuser can: the others learn of it at their next statement, or in it. Returns
    /// how many there were.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn kill_backends(&self) -> Result<usize, PostgresError> {
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid()";
        Ok(self.sql(kill).await?.lines().filter(|line| *line == "t").count())
    }

    /// Sets it up as Supabase does ([`SUPABASE`]), and returns the URL for the role `authenticator`, which may do nothing but
    /// become `anon`, `authenticated` or `service_role`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn supabase(&self) -> Result<String, PostgresError> {
        let password = format!("alter role authenticator password '{}'", self.postgres.password());
        self.sql(&format!("{SUPABASE};{password}")).await?;
        Ok(self.url("authenticator"))
    }

    fn url(&self, role: &str) -> String {
        let (password, port, name) = (self.postgres.password(), self.postgres.port(), &self.name);
        format!("postgres://{role}:{password}@localhost:{port}/{name}")
    }
}
