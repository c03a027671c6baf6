//! One PostgreSQL server: made, started, stopped, started again.
//!
//! From PostgreSQL's programs and a certificate of its own. To [`Database`]: a port, a superuser and its password.

use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use super::keeper::Keeper;
use super::programs::{self, Home};
use super::{Database, PostgresError};

/// What a test server needs besides PostgreSQL's defaults: many connections, and no care for what a power cut would lose.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = '64MB'
fsync = off
full_page_writes = off
jit = off
ssl = on
ssl_cert_file = '../server.crt'
ssl_key_file = '../server.key'
password_encryption = 'scram-sha-256'
";

/// Who may come in how. A role that was granted `tls_demanded` comes in by TLS or not at all; nobody without a password.
const DOORS: &str = "
local   all all           scram-sha-256
hostssl all all 127.0.0.1/32 scram-sha-256
host    all +tls_demanded 127.0.0.1/32 reject
host    all all 127.0.0.1/32 scram-sha-256
";

const CERTIFICATES: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = a throw-away authority
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:localhost
extendedKeyUsage = serverAuth
";

/// A port may be taken between being found free and being listened on.
const PORTS_TRIED: usize = 10;

/// A server that is up. A clone is another handle on it; when the last is gone, or the process, it ends and its files go.
#[derive(Clone, Debug)]
pub struct Postgres(Arc<Server>);

#[derive(Debug)]
struct Server {
    keeper: Option<Keeper>,
    programs: PathBuf,
    home: Home,
    password: String,
    port: u16,
    process: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes and starts a server of its own, which takes less than a second on a machine with nothing else to do. It blocks.
    ///
    /// # Errors
    /// When something is not installed or fails: see [`PostgresError`].
    pub fn start() -> Result<Self, PostgresError> {
        let (programs, openssl) = (programs::server()?, programs::one("openssl", "openssl")?);
        let home = Home::make()?;
        let keeper = Keeper::start(&home, "data/postmaster.pid", "QUIT")?;
        let password = password()?;
        home.write("password", &password)?;
        let mut initdb = home.command(&programs.join("initdb"));
        initdb.args(["--pgdata=data", "--username=postgres", "--pwfile=password", "--auth=scram-sha-256"]);
        initdb.args(["--no-sync", "--no-instructions", "--no-locale", "--encoding=UTF8"]);
        // The certificates are made beside it: each takes a part of the second.
        let (made, certified) = thread::scope(|scope| {
            let made = scope.spawn(|| programs::run(initdb));
            let certified = certify(&home, &openssl);
            (made.join(), certified)
        });
        certified?;
        let panicked = |_| PostgresError::Failed { program: "initdb".to_owned(), said: "a panic".to_owned() };
        made.map_err(panicked)??;
        home.write("data/pg_hba.conf", DOORS)?;
        home.write("data/postgresql.conf", SETTINGS)?;
        let process = Mutex::new(None);
        let databases = AtomicU32::new(0);
        let mut server = Server { keeper: Some(keeper), programs, home, password, port: 0, process, databases };
        server.find_port()?;
        Ok(Self(Arc::new(server)))
    }

    /// The server that all tests of this process share; the first to ask starts it. It blocks until that is done.
    ///
    /// # Errors
    /// As [`Postgres::start`]; the next to ask tries again.
    pub fn shared() -> Result<Self, PostgresError> {
        static SHARED: OnceLock<Mutex<Option<Postgres>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(postgres) = &*shared {
            return Ok(postgres.clone());
        }
        Ok(shared.insert(Self::start()?).clone())
    }

    /// A new, empty database, with a role of its own that may use it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self) -> Result<Database, PostgresError> {
        let name = format!("fanout{}", self.0.databases.fetch_add(1, Ordering::Relaxed) + 1);
        Database::make(self.clone(), name).await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The process at the head of the server, while it is up.
    pub fn process(&self) -> Option<u32> {
        self.0.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// The password of the superuser, `postgres`; every role that this module makes has the same.
    pub(super) fn password(&self) -> &str {
        &self.0.password
    }

    /// The certificate of the authority that signed the server's own, in PEM. The server's is for the name `localhost`,
    /// and not for `127.0.0.1`.
    pub fn authority(&self) -> PathBuf {
        self.0.home.folder.join("authority.crt")
    }

    /// Runs SQL as the superuser and returns what it printed, unaligned, without headings: one row a line, `|` between
    /// columns. The first error ends it.
    ///
    /// # Errors
    /// With what the server said.
    pub async fn sql(&self, database: &str, text: &str) -> Result<String, PostgresError> {
        let (postgres, database, text) = (self.clone(), database.to_owned(), text.to_owned());
        // Not on a thread of the runtime: what the text waits for may be a task of it.
        let ran = tokio::task::spawn_blocking(move || postgres.run(&database, &text)).await;
        ran.map_err(|error| PostgresError::Failed { program: "psql".to_owned(), said: error.to_string() })?
    }

    /// Ends the server as a crash would: every connection breaks, and what was not committed is lost. Blocks until it is
    /// gone; nothing happens if it is not up.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Starts it again on its port, with its data, after [`Postgres::stop`]; if it is up it is stopped first. It blocks.
    ///
    /// # Errors
    /// When it does not come up, as when its port was taken meanwhile.
    pub fn restart(&self) -> Result<(), PostgresError> {
        self.0.stop();
        self.0.serve(self.0.port)
    }

    fn run(&self, database: &str, text: &str) -> Result<String, PostgresError> {
        let server = &*self.0;
        // A file: the text may be longer than a pipe holds, and what it prints as well.
        let script = format!("sql-{}.sql", SCRIPTS.fetch_add(1, Ordering::Relaxed));
        server.home.write(&script, text)?;
        let mut psql = server.home.command(&server.programs.join("psql"));
        psql.env("PGPASSWORD", &server.password).arg("--host").arg(&server.home.folder);
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--username=postgres", &format!("--port={}", server.port), "--dbname", database, "--file", &script]);
        let printed = programs::run(psql);
        let _ = fs::remove_file(server.home.folder.join(script));
        printed
    }
}

static SCRIPTS: AtomicU32 = AtomicU32::new(0);

impl Server {
    fn find_port(&mut self) -> Result<(), PostgresError> {
        let mut tried = 1;
        loop {
            self.port = free_port()?;
            match self.serve(self.port) {
                Err(PostgresError::Failed { said, .. }) if said.contains("in use") && tried < PORTS_TRIED => tried += 1,
                ended => return ended,
            }
        }
    }

    fn serve(&self, port: u16) -> Result<(), PostgresError> {
        let (program, log) = (self.programs.join("postgres"), self.home.folder.join("log"));
        let in_log = |source| PostgresError::Folder { path: log.clone(), source };
        let mut command = self.home.command(&program);
        command.args(["-D", "data", "-p", &port.to_string(), "-k"]).arg(&self.home.folder);
        command.stderr(File::create(&log).map_err(in_log)?);
        let program = program.display().to_string();
        let child = command.spawn().map_err(|source| PostgresError::NotStarted { program: program.clone(), source })?;
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let child = process.insert(child);
        if programs::until_ready(child, || self.is_ready()) {
            return Ok(());
        }
        Err(PostgresError::Failed { program, said: self.home.log("log") })
    }

    /// Whether the server says so, in the file and the line where its own tools look.
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.home.folder.join("data/postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }

    fn stop(&self) {
        let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        // `Child::kill` would leave the server's own children behind.
        let _ = Command::new("kill").args(["-s", "QUIT", &child.id().to_string()]).stderr(Stdio::null()).status();
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        drop(self.keeper.take());
    }
}

/// An authority of its own, and a certificate signed by it for `localhost`.
fn certify(home: &Home, openssl: &Path) -> Result<(), PostgresError> {
    home.write("openssl.cnf", CERTIFICATES)?;
    let step = |words: &str| {
        let mut command = home.command(openssl);
        command.args(words.split_whitespace());
        programs::run(command)
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf";
    step(&format!("req -x509 {key} -extensions authority -days 2 -keyout authority.key -out authority.crt"))?;
    step(&format!("req -new {key} -subj /CN=localhost -keyout server.key -out server.csr"))?;
    step(
        "x509 -req -in server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 \
         -extfile openssl.cnf -extensions server -out server.crt",
    )?;
    Ok(())
}

/// A port that nobody listens on. Somebody may by the time it is used.
pub(super) fn free_port() -> Result<u16, PostgresError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(listener.map_err(PostgresError::NoPort)?.port())
}

/// Nobody else on the machine can guess it.
fn password() -> Result<String, PostgresError> {
    let (path, mut bytes) = (PathBuf::from("/dev/urandom"), [0; 16]);
    let read = File::open(&path).and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|source| PostgresError::Folder { path, source })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
