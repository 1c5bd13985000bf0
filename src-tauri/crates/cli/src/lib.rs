//! The program `semo`, and the composition of one process (hub, client, local API) that the desktop app starts too.
//!
//! It holds no logic of the product: it reads arguments and environment, puts the parts together, and gives results
//! a form for people and scripts. Errors go to stderr with a hint; the exit codes are [`exit::Exit`].

// They panic when nobody reads any more; see `print`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod approve;
mod arguments;
mod doctor;
mod down;
mod evidence;
mod exit;
mod explain;
mod follow;
mod holder;
mod hub_server;
mod ids;
mod journal_view;
mod key;
mod local;
mod login;
pub mod machine;
mod office;
mod office_settings;
pub mod port;
mod preserved;
mod print;
mod running;
mod send;
mod status;
mod stop;
mod tail;
mod typed;
mod up;

pub use exit::Failure;
pub use up::keep_log;
mod waiting;
mod words;
pub mod world;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, OfficeOrder, Order};
use exit::Exit;
use world::World;

/// Runs the program with the process's arguments and environment.
pub fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if matches!(arguments.order, Order::Login(_) | Order::Logout(_)) {
        // A profile that lacks something must not keep anybody from giving it.
        arguments.place.set.push("profile=this-machine".to_owned());
    }
    let world = match World::of_process(&arguments.place) {
        Ok(world) => world,
        Err(failure) => return failure.tell(),
    };
    // Nothing happens here in what users get: see `terminal::failpoints`.
    if let Err(what) = terminal::failpoints::arm(|name| world.environment.get(name).cloned()) {
        return Failure::new(Exit::Usage, what, "").tell();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(Exit::Failed, format!("could not start: {error}"), "").tell(),
    };
    match runtime.block_on(run(arguments, world)) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.tell(),
    }
}

async fn run(arguments: Arguments, world: World) -> Result<Exit, Failure> {
    match arguments.order {
        Order::Up(up) => up::run(&world, &up).await,
        Order::Down(down) => down::run(&world, &down).await,
        Order::Send(send) => send::run(&world, send).await,
        Order::Tail(tail) => tail::run(&world, &tail).await,
        Order::Cancel(cancel) => stop::cancel(&world, &cancel).await,
        Order::Terminate(terminate) => stop::terminate(&world, &terminate).await,
        Order::Status(status) => status::run(&world, &status).await,
        Order::Asks(asks) => approve::list(&world, &asks).await,
        Order::Approve(approve) => approve::run(&world, &approve).await,
        Order::Explain(explain) => explain::run(&world, &explain).await,
        Order::Preserved(preserved) => preserved::list(&world, &preserved).await,
        Order::Restore(restore) => preserved::restore(&world, &restore).await,
        Order::Office(OfficeOrder::Settings(settings)) => office_settings::run(&world, &settings).await,
        Order::Hub(order) => hub_server::run(&world, &order).await,
        Order::Login(login) => login::run(&world, &login).await,
        Order::Logout(logout) => login::leave_project(&world, &logout).await,
        Order::Doctor(doctor) => doctor::run(&world, &doctor).await,
    }
}
