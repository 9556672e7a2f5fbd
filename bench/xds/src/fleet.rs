//! Many proxies on one thread: each keeps a stream open, answers every response, and notes when a change arrives.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::http2::Http2;
use crate::raw::Raw;
use crate::wire::{self, Interest};

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(120);
/// Window of a proxy that does not want to be held up: it never has to grant more.
const WIDE: u32 = (1 << 31) - 1;
/// Window of a slow reader, the default of RFC 9113.
const NARROW: u32 = 65_535;
/// Connections that are opened at a time, so that no queue of the kernel overflows and adds seconds of its own.
const OPENING: usize = 100;
/// The same when each of them says which versions it holds: these requests are long.
const OPENING_LONG: usize = 8;
const READ: usize = 256 * 1024;

/// What all proxies of a fleet note together.
#[derive(Debug)]
pub struct Notes {
    /// The serial number that is waited for, and since when.
    mark: Cell<(u64, Instant)>,
    /// Times from `mark` to its arrival, one a stream.
    pub arrivals: RefCell<Vec<Duration>>,
    /// Resources that came.
    pub resources: Cell<u64>,
    /// Responses that came to refusing proxies.
    pub refusing_responses: Cell<u64>,
    /// Bytes that came.
    pub bytes_in: Cell<u64>,
    /// Bytes that were sent.
    pub bytes_out: Cell<u64>,
    /// Resources with this serial number or a later one.
    pub last_resources: Cell<u64>,
    /// From which serial number on resources count as the last.
    pub last_from: Cell<u64>,
    /// When each serial number was published; empty if latencies are not wanted.
    pub published: RefCell<Vec<Instant>>,
    /// Times from publication to arrival at proxies that note them.
    pub latencies: RefCell<Vec<Duration>>,
    /// The serial number that refusing proxies refuse.
    pub refuse: Cell<u64>,
    /// Versions by name, as the learning proxy saw them.
    pub versions: RefCell<HashMap<String, String>>,
    pub(crate) scratch: RefCell<Vec<u8>>,
    opened: Cell<usize>,
    goal: Cell<(usize, u64, u64)>,
    failure: RefCell<Option<String>>,
    changed: Notify,
}

impl Notes {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            mark: Cell::new((u64::MAX, Instant::now())),
            arrivals: RefCell::default(),
            resources: Cell::default(),
            refusing_responses: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            last_resources: Cell::default(),
            last_from: Cell::new(u64::MAX),
            published: RefCell::default(),
            latencies: RefCell::default(),
            refuse: Cell::new(u64::MAX),
            versions: RefCell::default(),
            scratch: RefCell::new(vec![0; READ]),
            opened: Cell::default(),
            goal: Cell::new((usize::MAX, u64::MAX, u64::MAX)),
            failure: RefCell::default(),
            changed: Notify::new(),
        })
    }

    fn reached(&self) -> bool {
        let (arrivals, resources, last) = self.goal.get();
        self.arrivals.borrow().len() >= arrivals
            || self.resources.get() >= resources
            || self.last_resources.get() >= last
    }

    pub(crate) fn tell(&self) {
        if self.reached() {
            self.changed.notify_one();
        }
    }

    /// Notes one resource; true if it is the one that is waited for.
    pub(crate) fn note(&self, serial: u64, now: Instant, timed: bool, seen: &mut u64) {
        self.resources.set(self.resources.get() + 1);
        let (mark, since) = self.mark.get();
        if serial == mark && *seen != mark {
            *seen = mark;
            self.arrivals.borrow_mut().push(now - since);
        }
        if serial >= self.last_from.get() {
            self.last_resources.set(self.last_resources.get() + 1);
        }
        if timed && serial > 0 {
            let place = usize::try_from(serial).unwrap_or(usize::MAX);
            if let Some(published) = self.published.borrow().get(place) {
                self.latencies.borrow_mut().push(now - *published);
            }
        }
    }
}

/// How a proxy behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent habits, not the states of one machine"
)]
pub struct Manners {
    /// Refuses the serial number that the notes name.
    pub refuses: bool,
    /// Notes the version of each resource.
    pub learns: bool,
    /// Stops reading when told to, and has a small window.
    pub slow: bool,
    /// Notes how old each change is when it arrives.
    pub timed: bool,
}

/// What a proxy is told to do besides.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Ask for one more resource.
    Subscribe(usize),
    /// Read nothing any more.
    Pause,
    /// Read again.
    Resume,
}

/// Bytes in, bytes out: xDS over HTTP/2, or the bare socket.
pub(crate) enum Speech {
    Xds(Box<Proxy>),
    Raw(Raw),
}

impl Speech {
    fn take(&mut self, bytes: &[u8], notes: &Notes) -> Result<()> {
        match self {
            Self::Xds(proxy) => proxy.take(bytes, notes),
            Self::Raw(raw) => {
                raw.take(bytes, notes);
                Ok(())
            }
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Xds(proxy) => proxy.http.out(),
            Self::Raw(raw) => &mut raw.out,
        }
    }
}

pub(crate) struct Proxy {
    http: Http2,
    interest: Rc<Interest>,
    manners: Manners,
    seen: u64,
    consumed: u32,
}

impl Proxy {
    fn new(id: usize, interest: Rc<Interest>, manners: Manners) -> Self {
        let method = if interest.delta { "Delta" } else { "Stream" };
        let path = format!(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}AggregatedResources"
        );
        let mut http = Http2::open(&path, if manners.slow { NARROW } else { WIDE });
        http.send(&wire::hello(id, &interest));
        Self {
            http,
            interest,
            manners,
            seen: u64::MAX,
            consumed: 0,
        }
    }

    fn take(&mut self, bytes: &[u8], notes: &Notes) -> Result<()> {
        let now = Instant::now();
        let (interest, manners, seen) = (&self.interest, self.manners, &mut self.seen);
        let mut answers = Vec::new();
        let mut broken = None;
        self.http.take(bytes, |message| {
            let mut refused = false;
            let read = wire::read_response(message, interest.delta, |resource| {
                notes.note(resource.serial, now, manners.timed, seen);
                refused |= manners.refuses && resource.serial == notes.refuse.get();
                if manners.learns {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let mut versions = notes.versions.borrow_mut();
                    versions.insert(text(resource.name), text(resource.version));
                }
            });
            if manners.refuses {
                notes
                    .refusing_responses
                    .set(notes.refusing_responses.get() + 1);
            }
            match read {
                Ok((version, nonce)) => {
                    answers.push(wire::answer(interest, version, nonce, refused));
                }
                Err(error) => broken = Some(error),
            }
        })?;
        if let Some(error) = broken {
            return Err(error);
        }
        for answer in answers {
            self.http.send(&answer);
        }
        if manners.slow {
            self.consumed += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if self.consumed > NARROW / 2 {
                self.http.grant(std::mem::take(&mut self.consumed));
            }
        }
        Ok(())
    }
}

/// Writes all that is to be written, as far as the window of the server allows it.
async fn write(tcp: &TcpStream, speech: &mut Speech, notes: &Notes) -> Result<()> {
    let out = speech.out();
    let mut at = 0;
    while at < out.len() {
        match tcp.try_write(&out[at..]) {
            Ok(written) => at += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => tcp.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    notes
        .bytes_out
        .set(notes.bytes_out.get() + out.len() as u64);
    out.clear();
    Ok(())
}

fn read(tcp: &TcpStream, speech: &mut Speech, notes: &Notes) -> Result<()> {
    let mut scratch = notes.scratch.borrow_mut();
    loop {
        match tcp.try_read(&mut scratch) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(size) => {
                notes.bytes_in.set(notes.bytes_in.get() + size as u64);
                speech.take(&scratch[..size], notes)?;
                if size < scratch.len() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn converse(
    port: u16,
    mut speech: Speech,
    mut orders: UnboundedReceiver<Order>,
    permit: OwnedSemaphorePermit,
    notes: &Notes,
) -> Result<()> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    write(&tcp, &mut speech, notes).await?;
    let mut permit = Some(permit);
    let mut paused = false;
    loop {
        let settled = match &speech {
            Speech::Xds(proxy) => proxy.http.is_settled(),
            Speech::Raw(_) => true,
        };
        if settled && permit.take().is_some() {
            notes.opened.set(notes.opened.get() + 1);
            notes.changed.notify_one();
        }
        tokio::select! {
            biased;
            order = orders.recv() => match (order, &mut speech) {
                (None, _) => return Ok(()),
                (Some(Order::Pause), _) => paused = true,
                (Some(Order::Resume), _) => paused = false,
                (Some(Order::Subscribe(index)), Speech::Xds(proxy)) => proxy.http.send(&wire::subscribe(index)),
                (Some(Order::Subscribe(_)), Speech::Raw(_)) => bail!("a bare socket has no subscriptions"),
            },
            ready = tcp.readable(), if !paused => {
                ready?;
                read(&tcp, &mut speech, notes)?;
                notes.tell();
            }
        }
        write(&tcp, &mut speech, notes).await?;
    }
}

/// The streams to one server.
pub struct Fleet {
    port: u16,
    raw: bool,
    pub notes: Rc<Notes>,
    orders: Vec<UnboundedSender<Order>>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// No streams yet; `raw` is the conversation of the bare socket loop.
    pub fn new(port: u16, raw: bool) -> Self {
        Self {
            port,
            raw,
            notes: Notes::new(),
            orders: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Opens streams of the same manners and returns when the requests of all are written.
    pub async fn add(
        &mut self,
        count: usize,
        manners: Manners,
        interest: impl Fn(usize) -> Rc<Interest>,
    ) -> Result<()> {
        self.add_each(count, |_| manners, interest).await
    }

    /// As [`Self::add`], with manners by number of the stream.
    pub async fn add_each(
        &mut self,
        count: usize,
        manners: impl Fn(usize) -> Manners,
        interest: impl Fn(usize) -> Rc<Interest>,
    ) -> Result<()> {
        let long = !self.raw && !interest(0).versions.is_empty();
        let gate = Arc::new(Semaphore::new(if long { OPENING_LONG } else { OPENING }));
        for _ in 0..count {
            let id = self.orders.len();
            let (sender, orders) = unbounded_channel();
            self.orders.push(sender);
            let (notes, port, raw) = (Rc::clone(&self.notes), self.port, self.raw);
            let (interest, manners, gate) = (interest(id), manners(id), Arc::clone(&gate));
            self.tasks.spawn_local(async move {
                let Ok(permit) = gate.acquire_owned().await else {
                    return;
                };
                let speech = if raw {
                    Speech::Raw(Raw::default())
                } else {
                    Speech::Xds(Box::new(Proxy::new(id, interest, manners)))
                };
                if let Err(error) = converse(port, speech, orders, permit, &notes).await {
                    *notes.failure.borrow_mut() = Some(format!("stream {id}: {error:#}"));
                    notes.changed.notify_one();
                }
            });
        }
        let all = self.orders.len();
        self.until("all streams are open", |notes| notes.opened.get() >= all)
            .await
    }

    /// Tells one proxy to do something.
    pub fn order(&self, stream: usize, order: Order) {
        if let Some(orders) = self.orders.get(stream) {
            // A stream that failed is noted as a failure.
            let _ = orders.send(order);
        }
    }

    /// From now on the arrival of this serial number is timed.
    pub fn mark(&self, serial: u64) {
        self.notes.arrivals.borrow_mut().clear();
        self.notes.mark.set((serial, Instant::now()));
    }

    /// Waits until so many streams have what is marked; returns their times, sorted.
    pub async fn arrivals(&self, streams: usize) -> Result<Vec<Duration>> {
        self.notes.goal.set((streams, u64::MAX, u64::MAX));
        self.until("the change arrives at all streams", |notes| {
            notes.arrivals.borrow().len() >= streams
        })
        .await?;
        let mut times = std::mem::take(&mut *self.notes.arrivals.borrow_mut());
        times.sort_unstable();
        Ok(times)
    }

    /// Waits until so many resources came since the fleet began.
    pub async fn resources(&self, count: u64) -> Result<()> {
        self.notes.goal.set((usize::MAX, count, u64::MAX));
        self.until("all resources arrive", |notes| {
            notes.resources.get() >= count
        })
        .await
    }

    /// Waits until so many of the last resources came.
    pub async fn last_resources(&self, count: u64) -> Result<()> {
        self.notes.goal.set((usize::MAX, u64::MAX, count));
        self.until("the last changes arrive at all streams", |notes| {
            notes.last_resources.get() >= count
        })
        .await
    }

    async fn until(&self, what: &str, reached: impl Fn(&Notes) -> bool) -> Result<()> {
        let wait = async {
            loop {
                if let Some(failure) = &*self.notes.failure.borrow() {
                    bail!("{failure}");
                }
                if reached(&self.notes) {
                    return Ok(());
                }
                self.notes.changed.notified().await;
            }
        };
        let ended = tokio::time::timeout(BOUND, wait).await;
        ended.with_context(|| {
            let notes = &self.notes;
            format!(
                "gave up after {BOUND:?} to wait until {what}: {} open, {} resources, {} arrivals",
                notes.opened.get(),
                notes.resources.get(),
                notes.arrivals.borrow().len()
            )
        })?
    }

    /// Closes all streams.
    pub async fn close(&mut self) {
        self.tasks.shutdown().await;
        self.orders.clear();
    }
}
