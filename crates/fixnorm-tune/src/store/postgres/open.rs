//! Opening, creating, listing, copying and deleting studies of a database, and keeping its schema up to date.
//! Not here: a study's jobs (`postgres.rs`).

use tokio_postgres::{Client, Transaction};

use super::super::{Place, State, StoreError, Study, TrialRow, check_same};
use super::address::Address;
use super::link::{Failure, Link};
use super::{NOW_MS, Postgres};

/// Every schema is made from the one before it; a new one is one more entry.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// "fxnt": two processes do not make the tables at once.
const LOCK: i64 = 0x6678_6e74;

impl Postgres {
    /// Opens the study of `address`, or creates it from `study`. An existing one must have the same plan, search and seeds;
    /// its number of trials becomes the one of `study`. True if it is new.
    ///
    /// # Errors
    /// A server that cannot be reached or that refuses, another study of that name.
    pub fn create_or_open(address: &Address, study: &Study) -> Result<(Self, bool), StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        let config = config(&place, study)?;
        let (id, saved) = link.run(async |client, _| {
            let transaction = client.transaction().await?;
            migrate(&transaction, &place).await?;
            // Of two that create it at once, the second one waits here for the first.
            insert(&transaction, address, study, &config).await?;
            let (id, saved) = load(&transaction, &place).await?;
            check_same(&place, &saved, study)?;
            let sql = "UPDATE fixnorm.study SET trials = $2 WHERE id = $1 AND trials <> $2";
            transaction.execute(sql, &[&id, &(study.trials as i64)]).await?;
            transaction.commit().await?;
            Ok((id, saved))
        })?;
        let is_new = saved.provenance == study.provenance && saved == *study;
        Ok((Self::new(link, id, Study { trials: study.trials, ..saved }), is_new))
    }

    /// Opens an existing study to work on it.
    ///
    /// # Errors
    /// As [`create_or_open`](Self::create_or_open), or no study of that name.
    pub fn open(address: &Address) -> Result<Self, StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        let (id, study) = link.run(async |client, _| {
            let transaction = client.transaction().await?;
            migrate(&transaction, &place).await?;
            let found = load(&transaction, &place).await?;
            transaction.commit().await?;
            Ok(found)
        })?;
        Ok(Self::new(link, id, study))
    }

    /// Opens an existing study to look at it: a role that may read the tables is enough.
    ///
    /// # Errors
    /// As [`open`](Self::open); tables of an earlier version, which only [`open`](Self::open) brings up to date.
    pub fn open_read_only(address: &Address) -> Result<Self, StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        let (id, study) = link.run(async |client, _| {
            let transaction = client.build_transaction().read_only(true).start().await?;
            let found = version(&transaction).await?;
            match found {
                0 => Err(StoreError::Empty(place.clone()).into()),
                found if found == known() => Ok(load(&transaction, &place).await?),
                found if found > known() => Err(newer(&place, found)),
                _ => {
                    let message = "its tables are of an earlier version: `fixnorm tune --study` \
                                   brings them up to date"
                        .to_owned();
                    Err(StoreError::Sql { place: place.clone(), message }.into())
                }
            }
        })?;
        Ok(Self { is_read_only: true, ..Self::new(link, id, study) })
    }

    /// Checks that the server can be reached, and makes the tables.
    ///
    /// # Errors
    /// A server that cannot be reached or that refuses.
    pub fn probe(address: &Address) -> Result<(), StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        link.run(async |client, _| {
            let transaction = client.transaction().await?;
            migrate(&transaction, &place).await?;
            Ok(transaction.commit().await?)
        })
    }

    /// Whether there is a study of that name.
    ///
    /// # Errors
    /// A server that cannot be reached or that refuses.
    pub fn exists(address: &Address) -> Result<bool, StoreError> {
        Ok(Self::names(address)?.iter().any(|name| name == address.study()))
    }

    /// The names of the database's studies.
    ///
    /// # Errors
    /// A server that cannot be reached or that refuses.
    pub fn names(address: &Address) -> Result<Vec<String>, StoreError> {
        Link::new(address)?.run(async |client, _| {
            let transaction = client.build_transaction().read_only(true).start().await?;
            if version(&transaction).await? == 0 {
                return Ok(vec![]);
            }
            let rows =
                transaction.query("SELECT name FROM fixnorm.study ORDER BY name", &[]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }

    /// Writes a study with all its trials under a name that is free. Jobs that run wait there.
    ///
    /// # Errors
    /// A study of that name, a server that cannot be reached or that refuses.
    pub fn import(address: &Address, study: &Study, trials: &[TrialRow]) -> Result<(), StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        let config = config(&place, study)?;
        link.run(async |client, again| {
            let transaction = client.transaction().await?;
            migrate(&transaction, &place).await?;
            if insert(&transaction, address, study, &config).await? == 0 {
                let (_, saved) = load(&transaction, &place).await?;
                // Ours, if the answer to an earlier try was lost.
                return if again && saved == *study {
                    Ok(())
                } else {
                    Err(StoreError::Exists(place.clone()).into())
                };
            }
            let (id, _) = load(&transaction, &place).await?;
            for trial in trials {
                import_trial(&transaction, id, trial).await?;
            }
            Ok(transaction.commit().await?)
        })
    }

    /// Removes the study.
    ///
    /// # Errors
    /// None of that name; one that workers are at work on, unless `force`d.
    pub fn delete(address: &Address, force: bool) -> Result<(), StoreError> {
        let mut link = Link::new(address)?;
        let place = link.place();
        link.run(async |client, again| {
            let transaction = client.transaction().await?;
            migrate(&transaction, &place).await?;
            let id = match load(&transaction, &place).await {
                Ok((id, _)) => id,
                Err(Failure::Store(StoreError::Empty(_))) if again => return Ok(()),
                Err(failure) => return Err(failure),
            };
            let held = "SELECT count(*) FROM fixnorm.job
                WHERE study = $1 AND state = 'running' AND lease >= clock_timestamp()";
            let workers: i64 = transaction.query_one(held, &[&id]).await?.get(0);
            if workers > 0 && !force {
                let workers = workers as usize;
                return Err(StoreError::InUse { place: place.clone(), workers }.into());
            }
            transaction.execute("DELETE FROM fixnorm.study WHERE id = $1", &[&id]).await?;
            Ok(transaction.commit().await?)
        })
    }
}

fn known() -> i64 {
    MIGRATIONS.len() as i64
}

fn newer(place: &Place, found: i64) -> Failure {
    StoreError::Newer { place: place.clone(), found, known: known() }.into()
}

fn config(place: &Place, study: &Study) -> Result<String, StoreError> {
    serde_json::to_string(study).map_err(|error| invalid(place, &error))
}

fn invalid(place: &Place, error: &serde_json::Error) -> StoreError {
    StoreError::Sql { place: place.clone(), message: format!("its configuration: {error}") }
}

/// Schema of the database; 0 before the first one.
async fn version(transaction: &Transaction<'_>) -> Result<i64, Failure> {
    // Not to_regclass, which may remember what another process has made meanwhile as missing.
    let exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'fixnorm' AND c.relname = 'schema_version')";
    if !transaction.query_one(exists, &[]).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = transaction.query_opt("SELECT version FROM fixnorm.schema_version", &[]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Brings the schema up to date.
async fn migrate(transaction: &Transaction<'_>, place: &Place) -> Result<(), Failure> {
    if version(transaction).await? == known() {
        return Ok(());
    }
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let found = version(transaction).await?;
    if found > known() {
        return Err(newer(place, found));
    }
    if found == 0 {
        let sql = "CREATE SCHEMA IF NOT EXISTS fixnorm;
            CREATE TABLE IF NOT EXISTS fixnorm.schema_version (version bigint NOT NULL);
            INSERT INTO fixnorm.schema_version VALUES (0)";
        transaction.batch_execute(sql).await?;
    }
    for step in MIGRATIONS.iter().skip(found as usize) {
        transaction.batch_execute(step).await?;
    }
    transaction.execute("UPDATE fixnorm.schema_version SET version = $1", &[&known()]).await?;
    Ok(())
}

/// Adds a study unless there is one of that name; returns the number added.
async fn insert(
    transaction: &Transaction<'_>,
    address: &Address,
    study: &Study,
    config: &str,
) -> Result<u64, Failure> {
    let sql = format!(
        "INSERT INTO fixnorm.study (name, created_ms, trials, config) VALUES ($1, {NOW_MS}, $2, $3)
         ON CONFLICT (name) DO NOTHING"
    );
    Ok(transaction.execute(&sql, &[&address.study(), &(study.trials as i64), &config]).await?)
}

/// The study of that name.
async fn load(transaction: &Transaction<'_>, place: &Place) -> Result<(i64, Study), Failure> {
    let Place::Database(address) = place else {
        unreachable!("a link's place is a database");
    };
    let sql = "SELECT id, trials, config FROM fixnorm.study WHERE name = $1";
    let row = transaction.query_opt(sql, &[&address.study()]).await?;
    let row = row.ok_or_else(|| StoreError::Empty(place.clone()))?;
    let config: String = row.get(2);
    let study: Study = serde_json::from_str(&config).map_err(|error| invalid(place, &error))?;
    Ok((row.get(0), Study { trials: row.get::<_, i64>(1) as usize, ..study }))
}

async fn import_trial(
    transaction: &Transaction<'_>,
    study: i64,
    trial: &TrialRow,
) -> Result<(), Failure> {
    let number = trial.number as i64;
    let proposed = trial.jobs.iter().filter_map(|job| job.started_ms).min();
    let sql = format!(
        "INSERT INTO fixnorm.trial (study, number, point, proposed_ms) VALUES ($1, $2, $3, coalesce($4, {NOW_MS}))"
    );
    transaction.execute(&sql, &[&study, &number, &trial.point, &proposed]).await?;
    for job in &trial.jobs {
        let state = if job.state == State::Running { State::Waiting } else { job.state };
        let sql = "INSERT INTO fixnorm.job (study, trial, seed, state, attempt, started_ms, ended_ms, val_top1,
                val_loss, test_top1, diverged, reason)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id";
        let row = transaction
            .query_one(
                sql,
                &[
                    &study,
                    &number,
                    &(job.seed as i64),
                    &state.name(),
                    &i64::from(job.attempt),
                    &job.started_ms,
                    &job.ended_ms,
                    &job.val_top1,
                    &job.val_loss,
                    &job.test_top1,
                    &job.diverged,
                    &job.reason,
                ],
            )
            .await?;
        super::record_curve(transaction, row.get(0), &job.curve).await?;
    }
    Ok(())
}

/// For callers that have no transaction yet.
pub(super) async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Failure> {
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    Ok(client.build_transaction().isolation_level(level).read_only(true).start().await?)
}
