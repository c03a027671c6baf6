//! pgbouncer in front of a server: one server connection serves many clients, one transaction at a time.
//!
//! From [`Postgres`]. To tests of what must not rest on a session: a URL that leads through it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Child;

use super::keeper::Keeper;
use super::programs::{self, Home};
use super::server::free_port;
use super::{Postgres, PostgresError};

/// So few that clients share them at once.
const SERVER_CONNECTIONS: u32 = 2;
const PORTS_TRIED: usize = 10;

/// A pooler in transaction mode with two server connections per role and database. It ends with the value or the process.
#[derive(Debug)]
pub struct Pgbouncer {
    keeper: Option<Keeper>,
    process: Child,
    port: u16,
    server: u16,
}

impl Pgbouncer {
    /// Starts one in front of every database of this server, for every role that has a password. It blocks.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn start(postgres: &Postgres) -> Result<Self, PostgresError> {
        let mut tried = 1;
        loop {
            match Self::start_on(free_port()?, postgres) {
                Err(PostgresError::Failed { said, .. }) if said.contains("in use") && tried < PORTS_TRIED => tried += 1,
                ended => return ended,
            }
        }
    }

    /// The URL that leads where this one leads, through the pooler.
    pub fn url(&self, direct: &str) -> String {
        direct.replace(&format!(":{}/", self.server), &format!(":{}/", self.port))
    }

    fn start_on(port: u16, postgres: &Postgres) -> Result<Self, PostgresError> {
        let (program, home) = (programs::one("pgbouncer", "pgbouncer")?, Home::make()?);
        let keeper = Some(Keeper::start(&home, "pid", "TERM")?);
        // Whoever is not in the file is looked up in the server, so that roles made later can come in as well.
        home.write("users", &format!("\"postgres\" \"{}\"\n", postgres.password()))?;
        let server = postgres.port();
        home.write(
            "settings",
            &format!(
                "[databases]
* = host=127.0.0.1 port={server} auth_user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users
auth_query = select rolname, rolpassword from pg_authid where rolname = $1
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 1000
pidfile = pid
"
            ),
        )?;
        let log = home.folder.join("log");
        let in_log = |source| PostgresError::Folder { path: log.clone(), source };
        let mut command = home.command(&program);
        command.arg("settings").stderr(File::create(&log).map_err(in_log)?);
        let program = program.display().to_string();
        let process = command.spawn();
        let process = process.map_err(|source| PostgresError::NotStarted { program: program.clone(), source })?;
        let mut pooler = Self { keeper, process, port, server };
        // Its own word comes first: another's port would answer as well.
        let is_ready =
            || home.log("log").contains("process up") && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        if programs::until_ready(&mut pooler.process, is_ready) {
            return Ok(pooler);
        }
        Err(PostgresError::Failed { program, said: home.log("log") })
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        drop(self.keeper.take());
        let _ = self.process.wait();
    }
}
