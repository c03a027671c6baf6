//! The throw-away PostgreSQL: that it is there, is nobody else's, and goes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fanout_testing::postgres::{Database, Pgbouncer, Postgres};
use tokio_postgres::{Client, NoTls};

/// Set in a process that is to start a server, say where it is, and wait to be killed.
const OWNER: &str = "FANOUT_TESTING_OWNER";

async fn database() -> Database {
    Postgres::shared().expect("a server").database().await.expect("a database")
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// What psql says to `select 1` over this URL: the answer, or the error.
fn psql(url: &str) -> Result<String, String> {
    let output = Command::new("psql").args(["--no-psqlrc", "-Atc", "select 1", url]).output().expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn a_database_has_a_superuser_and_a_role_that_policies_bind() {
    let database = database().await;
    database
        .sql(
            "create table notes (owner text, text text);
             alter table notes enable row level security;
             create policy own on notes using (owner = current_user);
             insert into notes values ('somebody', 'secret')",
        )
        .await
        .unwrap();
    let count = "select count(*) from notes";
    let superuser = connect(&database.superuser_url()).await;
    assert_eq!(superuser.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
    let user = connect(&database.user_url()).await;
    assert_eq!(user.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0);
    let what =
        "select rolsuper or rolbypassrls or rolcreatedb or rolcreaterole from pg_roles where rolname = current_user";
    assert!(!user.query_one(what, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn two_databases_of_a_server_know_nothing_of_each_other() {
    let (one, other) = (database().await, database().await);
    one.sql("create table here (n int)").await.unwrap();
    let refused = other.sql("select * from here").await.unwrap_err().to_string();
    assert!(refused.contains("does not exist"), "{refused}");
}

#[tokio::test]
async fn nobody_comes_in_without_the_password() {
    let database = database().await;
    let url = database.user_url();
    let (before, after) = url.split_once('@').unwrap();
    let (user, _) = before.rsplit_once(':').unwrap();
    let refused = psql(&format!("{user}:wrong@{after}")).unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[tokio::test]
async fn a_server_that_was_stopped_comes_back_with_its_data_and_without_its_connections() {
    let postgres = Postgres::start().unwrap();
    let database = postgres.database().await.unwrap();
    database.sql("create table kept (n int); insert into kept values (7)").await.unwrap();
    let client = connect(&database.user_url()).await;
    postgres.stop();
    assert!(client.query_one("select n from kept", &[]).await.is_err());
    assert!(psql(&database.user_url()).is_err());
    postgres.restart().unwrap();
    let again = connect(&database.user_url()).await;
    assert_eq!(again.query_one("select n from kept", &[]).await.unwrap().get::<_, i32>(0), 7);
}

#[tokio::test]
async fn killing_the_backends_breaks_every_connection_of_that_database_alone() {
    let (one, other) = (database().await, database().await);
    let (broken, whole) = (connect(&one.user_url()).await, connect(&other.user_url()).await);
    assert_eq!(one.kill_backends().await.unwrap(), 1);
    assert!(broken.query_one("select 1", &[]).await.is_err());
    assert!(whole.query_one("select 1", &[]).await.is_ok());
}

#[tokio::test]
async fn tls_is_offered_to_all_and_demanded_where_asked() {
    let postgres = Postgres::shared().unwrap();
    let (free, bound) = (postgres.database().await.unwrap(), postgres.database().await.unwrap());
    bound.demand_tls().await.unwrap();
    let authority = postgres.authority().display().to_string();
    let full = format!("?sslmode=verify-full&sslrootcert={authority}");
    let plain = "?sslmode=disable";
    let check = |database: &Database, options: &str, host: &str, wanted: Result<&str, &str>| {
        let said = psql(&format!("{}{options}", database.user_url().replace("localhost", host)));
        match (wanted, &said) {
            (Ok(wanted), Ok(said)) => assert_eq!(said, wanted),
            (Err(wanted), Err(said)) => assert!(said.contains(wanted), "{said}"),
            _ => panic!("{host} {options}: {said:?}"),
        }
    };
    check(&free, plain, "localhost", Ok("1"));
    check(&free, &full, "localhost", Ok("1"));
    check(&bound, plain, "localhost", Err("pg_hba.conf rejects connection"));
    check(&bound, &full, "localhost", Ok("1"));
    check(&bound, &full, "127.0.0.1", Err("does not match host name"));
    let other = Postgres::start().unwrap();
    check(
        &bound,
        &full.replace(&authority, &other.authority().display().to_string()),
        "localhost",
        Err("certificate verify failed"),
    );
}

#[tokio::test]
async fn the_pooler_serves_more_clients_than_it_has_connections() {
    let postgres = Postgres::shared().unwrap();
    let database = postgres.database().await.unwrap();
    let pooler = Pgbouncer::start(&postgres).unwrap();
    let url = pooler.url(&database.user_url());
    assert_ne!(url, database.user_url());
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect(&url).await);
    }
    // Two of them are in a transaction and hold what connections there are; when these end, the others go on. A pooler
    // that gave each client a connection of its own would never answer the third.
    for pair in clients.chunks(2) {
        for client in pair {
            client.batch_execute("begin").await.unwrap();
        }
        for client in pair {
            client.batch_execute("commit").await.unwrap();
        }
    }
    let backends = format!("select count(*) from pg_stat_activity where usename = '{}'", database.user());
    assert_eq!(database.sql(&backends).await.unwrap().trim(), "2");
}

#[tokio::test]
async fn supabases_roles_see_what_the_claims_say() {
    let postgres = Postgres::shared().unwrap();
    let (first, second) = (postgres.database().await.unwrap(), postgres.database().await.unwrap());
    let (_, url) = (first.supabase().await.unwrap(), second.supabase().await.unwrap());
    let client = connect(&url).await;
    assert!(
        client.batch_execute("create table public.mine (n int)").await.is_err(),
        "authenticator may do nothing itself"
    );
    let sub = "7b7b0d39-0f5c-4ff4-9d5e-0d3fd0a4a001";
    let ask = "select current_user::text, auth.uid()::text, auth.role(), auth.jwt() ->> 'email'";
    client
        .batch_execute(&format!(
            "begin; select set_config('role', 'authenticated', true);
             select set_config('request.jwt.claims', '{{\"sub\":\"{sub}\",\"role\":\"authenticated\",\"email\":\"a@b\"}}', true)"
        ))
        .await
        .unwrap();
    let row = client.query_one(ask, &[]).await.unwrap();
    let seen: Vec<&str> = (0..4).map(|at| row.get(at)).collect();
    assert_eq!(seen, ["authenticated", sub, "authenticated", "a@b"]);
    client.batch_execute("commit; set role anon").await.unwrap();
    let row = client.query_one(ask, &[]).await.unwrap();
    let seen: Vec<Option<&str>> = (0..4).map(|at| row.get(at)).collect();
    assert_eq!(seen, [Some("anon"), None, None, None]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "nobody tells when they end, so this looks until they have")]
fn a_server_and_its_pooler_end_with_the_process_that_was_killed() {
    if std::env::var_os(OWNER).is_some() {
        own();
    }
    let mut owner = owner();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let url = lines.find_map(|line| line.strip_prefix("server ").map(str::to_owned)).expect("a server");
    let pooled = lines.find_map(|line| line.strip_prefix("pooler ").map(str::to_owned)).expect("a pooler");
    let authority = lines.find_map(|line| line.strip_prefix("authority ").map(str::to_owned)).expect("its files");
    assert_eq!((psql(&url), psql(&pooled)), (Ok("1".to_owned()), Ok("1".to_owned())));
    owner.kill().unwrap();
    owner.wait().unwrap();
    while psql(&url).is_ok() || psql(&pooled).is_ok() || Path::new(&authority).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// This test, in a process that only starts servers.
fn owner() -> Child {
    let test = "postgres::a_server_and_its_pooler_end_with_the_process_that_was_killed";
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture"]).env(OWNER, "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("this binary, started")
}

fn own() -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let postgres = Postgres::start().expect("a server");
    let database = runtime.block_on(postgres.database()).expect("a database");
    let pooler = Pgbouncer::start(&postgres).expect("a pooler");
    println!("\nserver {}", database.user_url());
    println!("pooler {}", pooler.url(&database.user_url()));
    println!("authority {}", postgres.authority().display());
    loop {
        std::thread::park();
    }
}
