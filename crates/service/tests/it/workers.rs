//! Tasks on their threads.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tenfold_service::{Error, worker};
use tenfold_testkit::wait_for;

use super::{LIMIT, Process};

#[test]
fn a_task_runs_on_its_own_named_thread() {
    let process = Process::start(3);
    for handle in process.workers.handles() {
        let (sender, received) = mpsc::channel();
        let spawned = handle.spawn(move |worker| async move {
            let name = thread::current().name().map(str::to_owned);
            sender.send((worker.index, worker::current_index(), name)).unwrap();
        });
        spawned.unwrap();
        let index = handle.index();
        let expected = (index, index, Some(format!("tenfold-w{index}")));
        assert_eq!(received.recv_timeout(LIMIT).unwrap(), expected);
    }
    assert_eq!(worker::current_index(), usize::MAX);
}

#[test]
fn tasks_of_one_worker_may_share_what_is_not_send() {
    let process = Process::start(1);
    let (sender, received) = mpsc::channel();
    let spawned = process.workers.handles()[0].spawn(move |worker| async move {
        let shared = Rc::new(RefCell::new(0));
        let tasks = [(); 10].map(|()| {
            let shared = Rc::clone(&shared);
            worker.spawn(async move {
                tokio::task::yield_now().await;
                *shared.borrow_mut() += 1;
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        sender.send(*shared.borrow()).unwrap();
    });
    spawned.unwrap();
    assert_eq!(received.recv_timeout(LIMIT).unwrap(), 10);
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    /// Says that it was dropped, as a connection's socket is.
    struct Socket(Arc<AtomicBool>);
    impl Drop for Socket {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let process = Process::start(1);
    let handle = &process.workers.handles()[0];
    let closed = Arc::new(AtomicBool::new(false));
    let socket = Socket(Arc::clone(&closed));
    let in_future = handle.spawn(|_| async move {
        let _socket = socket;
        tokio::task::yield_now().await;
        panic!("request {} was too much", 7);
    });
    in_future.unwrap();
    handle.spawn(|_| -> std::future::Ready<()> { panic!("before the future") }).unwrap();
    handle.spawn(|_| async { std::panic::panic_any(7_u8) }).unwrap();
    wait_for("three panics to be reported", LIMIT, || process.panics.lock().unwrap().len() == 3);
    let mut panics = process.panics.lock().unwrap().clone();
    panics.sort();
    assert_eq!(panics, ["0: before the future", "0: not a text", "0: request 7 was too much"]);
    assert!(closed.load(Ordering::Acquire));
    assert_eq!(process.metric("tenfold_service_panics", None), 3.0);
    let (sender, received) = mpsc::channel();
    handle.spawn(|_| async move { sender.send("alive").unwrap() }).unwrap();
    assert_eq!(received.recv_timeout(LIMIT).unwrap(), "alive");
}

#[test]
fn timers_of_a_worker_strike_by_themselves() {
    let process = Process::start(1);
    let (sender, received) = mpsc::channel();
    let spawned = process.workers.handles()[0].spawn(move |worker| async move {
        let began: Instant = worker.clock.now();
        let timer = worker.timers.timer();
        for _ in 0..2 {
            timer.arm(Duration::from_millis(60));
            timer.expired().await;
        }
        sender.send(worker.clock.now() - began).unwrap();
    });
    spawned.unwrap();
    assert!(received.recv_timeout(LIMIT).unwrap() >= Duration::from_millis(120));
}

#[test]
fn stopping_drops_what_runs_and_refuses_what_comes() {
    let process = Process::start(2);
    let handles = process.workers.handles();
    let (sender, received) = mpsc::channel::<()>();
    for handle in &handles {
        let sender = sender.clone();
        let endless = handle.spawn(|_| async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        endless.unwrap();
    }
    drop(sender);
    process.workers.stop();
    // Every sender is gone: the tasks were dropped.
    assert!(matches!(received.recv_timeout(LIMIT), Err(mpsc::RecvTimeoutError::Disconnected)));
    assert!(handles.iter().all(|handle| matches!(handle.spawn(|_| async {}), Err(Error::WorkerStopped))));
}

#[test]
fn a_full_queue_is_an_error_to_the_sender() {
    let process = Process::start(1);
    let handle = &process.workers.handles()[0];
    let (release, released) = mpsc::channel::<()>();
    let (sender, blocked) = mpsc::channel();
    // A task that holds its thread, which none should.
    let holding = handle.spawn(move |_| async move {
        sender.send(()).unwrap();
        released.recv().unwrap();
    });
    holding.unwrap();
    blocked.recv_timeout(LIMIT).unwrap();
    let accepted = (0..=worker::SPAWN_QUEUE_MAX).take_while(|_| handle.spawn(|_| async {}).is_ok()).count();
    assert_eq!(accepted, worker::SPAWN_QUEUE_MAX);
    assert!(matches!(handle.spawn(|_| async {}), Err(Error::SpawnQueueFull)));
    release.send(()).unwrap();
    wait_for("the queue to be taken", LIMIT, || handle.spawn(|_| async {}).is_ok());
}
