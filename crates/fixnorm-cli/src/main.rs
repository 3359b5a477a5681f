//! The command `fixnorm`: arguments and printing, nothing else.

mod args;
mod commands;
mod environment;
mod output;
mod progress;
mod run;
mod trials;

use std::process::ExitCode;

use clap::Parser;

use fixnorm_kernels::allocator::{self, Allocator};

use args::{BenchCommand, Cli, Command, DataCommand, Format};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let cli = Cli::parse();
    if let Err(error) = environment::apply() {
        eprintln!("error: {error:#}");
        return ExitCode::from(output::USAGE);
    }
    let done = execute(cli.command, cli.format);
    done.unwrap_or_else(|error| {
        // One line: the library's errors name their causes themselves.
        eprintln!("error: {error}");
        output::exit_code(&error)
    })
}

fn execute(command: Command, format: Format) -> anyhow::Result<ExitCode> {
    match command {
        Command::Train(args) => commands::train::run(&args, format),
        Command::Tune(args) => commands::tune::run(&args, format),
        Command::Study(command) => commands::study::run(&command, format),
        Command::Supervise(args) => commands::exec::supervise(&args),
        Command::Eval(args) => commands::eval::run(&args, format),
        Command::Predict(args) => commands::predict::run(&args, format),
        Command::Models => commands::models::run(format),
        Command::Recipes(args) => commands::recipes::run(&args, format),
        Command::Risk(args) => commands::risk::run(&args, format),
        Command::Dissect(args) => commands::dissect::run(&args, format),
        Command::Migrate(args) => commands::migrate::run(&args, format),
        Command::Report(args) => commands::report::run(&args, format),
        Command::Export(args) => commands::export::run(&args, format),
        Command::Inspect(args) => commands::inspect::run(&args, format),
        Command::Data(DataCommand::Check(args)) => commands::data::check(&args, format),
        Command::Data(DataCommand::Fetch(args)) => commands::data::fetch(&args, format),
        Command::Bench(BenchCommand::Step(args)) => commands::bench::step(&args, format),
        Command::Bench(BenchCommand::Optim(args)) => commands::bench::optim(&args, format),
        Command::Bench(BenchCommand::Data(args)) => commands::bench::data(&args, format),
    }
}
