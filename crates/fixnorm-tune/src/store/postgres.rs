//! A study in a PostgreSQL database, shared by processes of any number of machines.
//!
//! One connection a process, on tokio-postgres: there is no code generation, and the runtime runs on the thread that waits.
//! - A claim takes a free job with `FOR UPDATE SKIP LOCKED`, so that claims do not wait for each other. Where none is free, the
//!   study's row is locked while the searcher proposes, so that proposals follow each other.
//! - Leases and times are the server's.
//! - Whatever fails because a connection or the server died is tried again (`postgres/link.rs`). Every write can be repeated:
//!   a claim has a token by which its job is found again, a result belongs to one attempt.
//! - Statements name the types of their parameters, which spares the server's description of each, a round trip of its own:
//!   while a searcher proposes, all others wait.
//!
//! Not here: connections (`link.rs`), URLs and passwords (`address.rs`), TLS (`tls.rs`), opening, copying and deleting
//! (`open.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, Transaction};

use super::{
    Claim, End, Epoch, Job, JobRow, State, Store, StoreError, Study, TrialRow, bound_pruned, cost,
};
use crate::prune::Prune;
use crate::search::{Ask, Outcome};

mod address;
mod link;
mod open;
mod tls;

pub use address::Address;
use link::{Failure, Link};
use open::snapshot;

const NOW_MS: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// A study in a database.
pub struct Postgres {
    // Reading needs the connection, too.
    link: RefCell<Link>,
    id: i64,
    study: Study,
    is_read_only: bool,
    /// Number of claims so far.
    claims: u64,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("place", &self.link.borrow().place()).finish()
    }
}

impl Postgres {
    fn new(link: Link, id: i64, study: Study) -> Self {
        Self { link: RefCell::new(link), id, study, is_read_only: false, claims: 0 }
    }

    fn writable(&mut self) -> Result<&mut Link, StoreError> {
        let link = self.link.get_mut();
        if self.is_read_only { Err(StoreError::ReadOnly(link.place())) } else { Ok(link) }
    }
}

impl Store for Postgres {
    fn study(&self) -> &Study {
        &self.study
    }

    fn claim(&mut self, worker: &str, lease: Duration) -> Result<Claim, StoreError> {
        self.claims += 1;
        let token = token(worker, self.claims);
        let (id, study) = (self.id, self.study.clone());
        let claimed = Claimed { id, study: &study, worker, token: &token, lease: ms(lease) };
        self.writable()?.run(async |client, again| {
            let transaction = client.transaction().await?;
            if again && let Some(job) = claimed.earlier(&transaction).await? {
                return Ok(Claim::Run(job));
            }
            let claim = match claimed.free(&transaction).await? {
                Some(job) => Claim::Run(job),
                None => claimed.proposed(&transaction).await?,
            };
            transaction.commit().await?;
            Ok(claim)
        })
    }

    fn renew(&mut self, job: &Job, lease: Duration, curve: &[Epoch]) -> Result<bool, StoreError> {
        self.writable()?.run(async |client, _| {
            let transaction = client.transaction().await?;
            let sql = "UPDATE fixnorm.job SET lease = clock_timestamp() + $3 * interval '1 ms'
                WHERE id = $1 AND attempt = $2 AND state = 'running'";
            let attempt = i64::from(job.attempt);
            let lease = ms(lease);
            let parameters: Parameters<'_, 3> =
                [(&job.id, Type::INT8), (&attempt, Type::INT8), (&lease, Type::FLOAT8)];
            let held = transaction.execute_typed(sql, &parameters).await? == 1;
            if held {
                record_curve(&transaction, job.id, curve).await?;
            }
            transaction.commit().await?;
            Ok(held)
        })
    }

    fn finish(&mut self, job: &Job, end: &End) -> Result<bool, StoreError> {
        let stored = end.stored();
        // A text of the server holds no such letter.
        let reason = stored.reason.map(|reason| reason.replace('\0', "\u{fffd}"));
        let (id, all_seeds) = (self.id, self.study.all_seeds);
        let attempt = i64::from(job.attempt);
        self.writable()?.run(async |client, again| {
            let transaction = client.transaction().await?;
            let sql = format!(
                "UPDATE fixnorm.job SET state = $3, ended_ms = {NOW_MS}, val_top1 = $4, val_loss = $5,
                     test_top1 = $6, diverged = $7, reason = $8
                 WHERE id = $1 AND attempt = $2 AND state = 'running'"
            );
            let name = stored.state.name();
            let parameters: Parameters<'_, 8> = [
                (&job.id, Type::INT8),
                (&attempt, Type::INT8),
                (&name, Type::TEXT),
                (&stored.val_top1, Type::FLOAT8),
                (&stored.val_loss, Type::FLOAT8),
                (&stored.test_top1, Type::FLOAT8),
                (&stored.diverged, Type::BOOL),
                (&reason, Type::TEXT),
            ];
            let counted = transaction.execute_typed(&sql, &parameters).await?;
            if counted == 0 {
                // Nobody else ends this attempt: then our answer was lost.
                let sql = "SELECT 1 FROM fixnorm.job WHERE id = $1 AND attempt = $2 AND state = $3";
                let ours = transaction.query_typed_opt(sql, &parameters[..3]).await?;
                return Ok(again && ours.is_some());
            }
            if !all_seeds && matches!(stored.state, State::Failed | State::Pruned) {
                skip_decided(&transaction, id).await?;
            }
            transaction.commit().await?;
            Ok(true)
        })
    }

    fn release(&mut self, job: &Job) -> Result<(), StoreError> {
        self.writable()?.run(async |client, _| {
            let sql = "UPDATE fixnorm.job SET state = 'waiting', worker = NULL, token = NULL
                WHERE id = $1 AND attempt = $2 AND state = 'running'";
            let attempt = i64::from(job.attempt);
            client.execute_typed(sql, &[(&job.id, Type::INT8), (&attempt, Type::INT8)]).await?;
            Ok(())
        })
    }

    fn trials(&self) -> Result<Vec<TrialRow>, StoreError> {
        let (id, epochs) = (self.id, self.study.epochs);
        self.link.borrow_mut().run(async |client, _| {
            let transaction = snapshot(client).await?;
            Ok(trials(&transaction, id, epochs, true).await?)
        })
    }
}

/// Values of a statement's parameters, with their types.
type Parameters<'a, const N: usize> = [(&'a (dyn ToSql + Sync), Type); N];

/// A claim on its way.
struct Claimed<'a> {
    id: i64,
    study: &'a Study,
    worker: &'a str,
    token: &'a str,
    lease: f64,
}

impl Claimed<'_> {
    /// The job that an earlier try took, whose answer was lost.
    async fn earlier(&self, transaction: &Transaction<'_>) -> Result<Option<Job>, Failure> {
        let sql = "SELECT job.id, job.trial, job.seed, job.attempt, trial.point
            FROM fixnorm.job JOIN fixnorm.trial ON trial.study = job.study AND trial.number = job.trial
            WHERE job.study = $1 AND job.token = $2 AND job.state = 'running'";
        let parameters: Parameters<'_, 2> = [(&self.id, Type::INT8), (&self.token, Type::TEXT)];
        Ok(transaction.query_typed_opt(sql, &parameters).await?.map(|row| job(&row)))
    }

    /// Takes the first job that waits or whose lease ran out, unless its trial is decided.
    async fn free(&self, transaction: &Transaction<'_>) -> Result<Option<Job>, Failure> {
        let sql = format!(
            "WITH free AS MATERIALIZED (
                 SELECT id FROM fixnorm.job AS candidate
                 WHERE study = $1 AND state IN ('waiting', 'running')
                 AND (state = 'waiting' OR lease < clock_timestamp())
                 AND ($2 OR NOT EXISTS (
                     SELECT FROM fixnorm.job AS decided
                     WHERE decided.study = $1 AND decided.trial = candidate.trial
                     AND decided.state IN ('failed', 'pruned')))
                 ORDER BY trial, id LIMIT 1 FOR UPDATE SKIP LOCKED)
             UPDATE fixnorm.job SET state = 'running', worker = $3, token = $4, attempt = attempt + 1,
                 lease = clock_timestamp() + $5 * interval '1 ms', started_ms = {NOW_MS}
             FROM free, fixnorm.trial
             WHERE job.id = free.id AND trial.study = job.study AND trial.number = job.trial
             RETURNING job.id, job.trial, job.seed, job.attempt, trial.point"
        );
        let parameters: Parameters<'_, 5> = [
            (&self.id, Type::INT8),
            (&self.study.all_seeds, Type::BOOL),
            (&self.worker, Type::TEXT),
            (&self.token, Type::TEXT),
            (&self.lease, Type::FLOAT8),
        ];
        Ok(transaction.query_typed_opt(&sql, &parameters).await?.map(|row| job(&row)))
    }

    /// Where no job is free: asks the searcher, one process at a time.
    async fn proposed(&self, transaction: &Transaction<'_>) -> Result<Claim, Failure> {
        let sql = "SELECT (SELECT count(*) FROM fixnorm.trial WHERE study = $1) FROM fixnorm.study WHERE id = $1 FOR UPDATE";
        transaction.query_typed_opt(sql, &[(&self.id, Type::INT8)]).await?;
        // Another process may have proposed meanwhile.
        if !self.study.all_seeds {
            skip_decided(transaction, self.id).await?;
        }
        if let Some(job) = self.free(transaction).await? {
            return Ok(Claim::Run(job));
        }
        match self.propose(transaction).await? {
            Ask::Try(_) => {
                let job = self.free(transaction).await?;
                Ok(job.map_or(Claim::Wait, Claim::Run))
            }
            Ask::Wait => Ok(Claim::Wait),
            Ask::Done(reason) => {
                // Jobs of others may yet be given back.
                let sql = "SELECT EXISTS (SELECT FROM fixnorm.job
                    WHERE study = $1 AND state IN ('waiting', 'running'))";
                let row = transaction.query_typed_one(sql, &[(&self.id, Type::INT8)]).await?;
                let open: bool = row.get(0);
                Ok(if open { Claim::Wait } else { Claim::Done(reason) })
            }
        }
    }

    /// Asks the searcher and adds what it proposes.
    async fn propose(&self, transaction: &Transaction<'_>) -> Result<Ask<Vec<f64>>, Failure> {
        let sql = "SELECT count(*) FROM fixnorm.trial WHERE study = $1";
        let row = transaction.query_typed_one(sql, &[(&self.id, Type::INT8)]).await?;
        let number: i64 = row.get(0);
        if number as usize >= self.study.trials {
            return Ok(Ask::Done(format!("all {number} trials are done")));
        }
        // Curves matter to bounds alone.
        let with_curves = self.study.prune != Prune::Off;
        let rows = trials(transaction, self.id, self.study.epochs, with_curves).await?;
        let history: Vec<(Vec<f64>, Outcome)> =
            rows.into_iter().map(|row| (row.point.clone(), row.outcome())).collect();
        let ask = self.study.search.ask(&history);
        if let Ask::Try(point) = &ask {
            let sql = format!(
                "INSERT INTO fixnorm.trial (study, number, point, proposed_ms) VALUES ($1, $2, $3, {NOW_MS})"
            );
            let parameters: Parameters<'_, 3> =
                [(&self.id, Type::INT8), (&number, Type::INT8), (point, Type::FLOAT8_ARRAY)];
            transaction.execute_typed(&sql, &parameters).await?;
            let seeds = self.study.seeds_at(point, &history);
            // In order: ids follow it, and jobs are claimed by id.
            let sql = "INSERT INTO fixnorm.job (study, trial, seed)
                SELECT $1, $2, seed FROM unnest($3::bigint[]) WITH ORDINALITY AS seeds (seed, place) ORDER BY place";
            let parameters: Parameters<'_, 3> =
                [(&self.id, Type::INT8), (&number, Type::INT8), (&seeds, Type::INT8_ARRAY)];
            transaction.execute_typed(sql, &parameters).await?;
        }
        Ok(ask)
    }
}

/// Unlike that of any other claim.
fn token(worker: &str, number: u64) -> String {
    use std::hash::{BuildHasher, RandomState};
    // Seeded by the system for each process.
    format!("{worker} {number} {:016x}", RandomState::new().hash_one(number))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn job(row: &Row) -> Job {
    Job {
        id: row.get(0),
        trial: row.get::<_, i64>(1) as usize,
        seed: row.get::<_, i64>(2) as u64,
        attempt: row.get::<_, i64>(3) as u32,
        point: row.get(4),
    }
}

/// A failed or hopeless seed decides its trial: the seeds that wait, or whose worker is gone, need not run.
async fn skip_decided(transaction: &Transaction<'_>, study: i64) -> Result<(), Failure> {
    let sql = "UPDATE fixnorm.job SET state = 'skipped'
        WHERE study = $1 AND (state = 'waiting' OR state = 'running' AND lease < clock_timestamp())
        AND trial IN (SELECT trial FROM fixnorm.job WHERE study = $1 AND state IN ('failed', 'pruned'))";
    transaction.execute_typed(sql, &[(&study, Type::INT8)]).await?;
    Ok(())
}

/// Writes a curve over the one that is there; epochs behind its end are of an attempt that was not resumed.
async fn record_curve(
    transaction: &Transaction<'_>,
    job: i64,
    curve: &[Epoch],
) -> Result<(), Failure> {
    let Some(last) = curve.last() else { return Ok(()) };
    let column = |of: fn(&Epoch) -> Option<f64>| curve.iter().map(of).collect::<Vec<_>>();
    let epochs: Vec<i64> = curve.iter().map(|epoch| epoch.epoch as i64).collect();
    let scores: Vec<f64> = curve.iter().map(|epoch| epoch.val_top1).collect();
    let (train_losses, val_losses) = (column(|e| e.train_loss), column(|e| e.val_loss));
    let sql = "DELETE FROM fixnorm.curve WHERE job = $1 AND epoch > $2";
    let last = last.epoch as i64;
    transaction.execute_typed(sql, &[(&job, Type::INT8), (&last, Type::INT8)]).await?;
    let sql = "INSERT INTO fixnorm.curve (job, epoch, train_loss, val_loss, val_top1)
        SELECT $1, * FROM unnest($2::bigint[], $3::float8[], $4::float8[], $5::float8[])
        ON CONFLICT (job, epoch) DO UPDATE SET train_loss = excluded.train_loss, val_loss = excluded.val_loss,
            val_top1 = excluded.val_top1";
    let parameters: Parameters<'_, 5> = [
        (&job, Type::INT8),
        (&epochs, Type::INT8_ARRAY),
        (&train_losses, Type::FLOAT8_ARRAY),
        (&val_losses, Type::FLOAT8_ARRAY),
        (&scores, Type::FLOAT8_ARRAY),
    ];
    transaction.execute_typed(sql, &parameters).await?;
    Ok(())
}

async fn trials(
    client: &impl GenericClient,
    study: i64,
    epochs: usize,
    with_curves: bool,
) -> Result<Vec<TrialRow>, tokio_postgres::Error> {
    let sql = "SELECT number, point FROM fixnorm.trial WHERE study = $1 ORDER BY number";
    let mut rows: Vec<TrialRow> = client
        .query_typed(sql, &[(&study, Type::INT8)])
        .await?
        .iter()
        .map(|row| TrialRow {
            number: row.get::<_, i64>(0) as usize,
            point: row.get(1),
            jobs: vec![],
            bound: None,
        })
        .collect();
    let mut curves: HashMap<i64, Vec<Epoch>> = HashMap::new();
    if with_curves {
        let sql = "SELECT curve.job, epoch, curve.train_loss, curve.val_loss, curve.val_top1 FROM fixnorm.curve
            JOIN fixnorm.job ON job.id = curve.job WHERE job.study = $1 ORDER BY curve.job, epoch";
        for row in client.query_typed(sql, &[(&study, Type::INT8)]).await? {
            curves.entry(row.get(0)).or_default().push(Epoch {
                epoch: row.get::<_, i64>(1) as usize,
                train_loss: row.get(2),
                val_loss: row.get(3),
                val_top1: row.get(4),
            });
        }
    }
    let sql = "SELECT id, trial, seed, state, attempt, val_top1, val_loss, test_top1, diverged, reason, started_ms,
            ended_ms
        FROM fixnorm.job WHERE study = $1 ORDER BY trial, id";
    for row in client.query_typed(sql, &[(&study, Type::INT8)]).await? {
        let curve = curves.remove(&row.get(0)).unwrap_or_default();
        let state = State::from_name(row.get(3)).unwrap_or(State::Waiting);
        let job = JobRow {
            seed: row.get::<_, i64>(2) as u64,
            state,
            attempt: row.get::<_, i64>(4) as u32,
            val_top1: row.get(5),
            val_loss: row.get(6),
            test_top1: row.get(7),
            diverged: row.get(8),
            reason: row.get(9),
            cost: cost(state, curve.len(), epochs),
            started_ms: row.get(10),
            ended_ms: row.get(11),
            curve,
        };
        let trial = row.get::<_, i64>(1) as usize;
        if let Some(row) = rows.get_mut(trial) {
            row.jobs.push(job);
        }
    }
    bound_pruned(&mut rows);
    Ok(rows)
}
