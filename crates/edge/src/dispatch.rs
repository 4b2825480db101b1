//! What is to be done with a request, decided while its head is still borrowed from the receive buffer.
//!
//! **Intuition.** One direction and no waiting: normalise, route, look up. A hit ends here, its answer already written to
//! the outbox; nothing was allocated for it. Whatever has to wait leaves with a [`Task`] that owns what it needs.
//!
//! **Failure.** A refusal is an answer like any other. Where the request has a body that nobody will read, the connection
//! closes after it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tenfold_cache::{
    AloneReason, Body, CacheStatus, Fill, Floor, Follower, Forward, Hit, Join, KeyBuf, Lookup, MissReason,
    Renewal, RequestFacts, Rule, Scheme, Timestamp,
};
use tenfold_http1::{
    BodyLength, Error as Malformed, Field, Method, RequestHead, TargetForm, Version, write_content_length,
};

use crate::body::{self, Framing};
use crate::exchange::NodeRequest;
use crate::fetch;
use crate::forward::{
    Forwarding, Outgoing, Survey, overrides_method, passed_on, told_scheme, write_request_head,
};
use crate::io::take_outbox;
use crate::local::{Local, Scratch};
use crate::metrics::{CacheOutcome, PositionOutcome};
use crate::normalise::{Target, client_ip, is_trusted, normalise, normalise_host};
use crate::own_writes::Brought;
use crate::position::Token;
use crate::reason::{Reason, Refusal, write_refusal};
use crate::reply::{self, Ours, ShownKey, write_stored};
use crate::request_id::RequestId;
use crate::router::RouteIndex;
use crate::snapshot::Snapshot;
use crate::task::{Account, Client, Described, Task};

/// What a connection does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The answer's head is in the outbox; the body is to be written behind it.
    Answered { body: Option<Body>, close: bool },
    /// Pass it through.
    Pass(Box<Task>),
    /// Wait for a fill.
    Follow(Box<Task>, Follower),
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrance<'a> {
    pub(crate) local: &'a Rc<Local>,
    pub(crate) snapshot: &'a Arc<Snapshot>,
    pub(crate) peer: IpAddr,
    /// No other request may follow on this connection.
    pub(crate) last: bool,
    pub(crate) now: Instant,
}

/// A request as far as it is understood.
struct Request<'r, 'b> {
    head: &'r RequestHead<'b>,
    /// Those that exist for routes, keys, `Vary` and nodes alike. What else `head` holds is framing.
    fields: &'r [Field<'r>],
    scheme: Scheme,
    host: &'r str,
    target: Target<'r>,
    request_id: RequestId,
    client: Client,
    route: RouteIndex,
    /// What its client has to see, on routes that care.
    token: Option<Token>,
}

impl Entrance<'_> {
    /// Decides. What can be answered at once is, into `out`.
    pub(crate) fn dispatch(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) -> Step {
        let mut scratch = self.local.scratch.take();
        let step = self.understand(head, &mut scratch, out);
        self.local.scratch.replace(scratch);
        step
    }

    fn understand(&self, head: &RequestHead<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Step {
        let trusted = is_trusted(self.peer, &self.snapshot.config.trusted_proxies);
        let request_id = self.name(head, trusted);
        let survey = Survey::of(&head.fields);
        let client = self.client(head, survey.conditional);
        if head.form == TargetForm::Asterisk {
            return self.describe_server(&request_id, head, &client, out);
        }
        let brought = self.brought(&head.fields);
        let without_ours;
        let came: &[Field<'_>] = if brought.rewrites() {
            without_ours = brought.fields(&head.fields);
            &without_ours
        } else {
            &head.fields
        };
        // Most requests leave nothing out, and need no list of their own.
        let kept;
        let (fields, scheme): (&[Field<'_>], _) = if survey.claims || head.names_hop_by_hop {
            kept = passed_on(came, head.names_hop_by_hop, trusted);
            (&kept, told_scheme(&kept))
        } else {
            (came, Scheme::Http)
        };
        let Scratch { path, host, key } = scratch;
        match self.resolve(head, fields, path, host) {
            Ok((host, target, route)) => {
                // What doesn't count is not sent either: an answer it had shaped would be everybody's.
                let counts = match is_asked_for(head.method) {
                    true => self.rule(route).counted_query(target.query),
                    false => target.query.map(Cow::Borrowed),
                };
                let target = Target { query: counts.as_deref(), ..target };
                let token = brought.token.filter(|_| self.snapshot.routes[route.0].own_writes);
                let request =
                    Request { head, fields, scheme, host, target, request_id, client, route, token };
                self.look_up(&request, key, out)
            }
            Err(refused) => self.refuse(head, &request_id, &client, refused, out),
        }
    }

    /// What the client carries, where that counts for anything.
    fn brought(&self, fields: &[Field<'_>]) -> Brought {
        let Some(seal) = &self.snapshot.seal else { return Brought::default() };
        let brought = Brought::of(fields, seal, self.local.worker.clock.unix_ms_at(self.now));
        if brought.refused {
            self.local.shared.metrics.on_position(PositionOutcome::Refused);
        }
        brought
    }

    fn rule(&self, route: RouteIndex) -> &Rule {
        &self.snapshot.routes[route.0].rule
    }

    /// What it asks for, in normal form, and the route that takes it.
    fn resolve<'r>(
        &'r self,
        head: &'r RequestHead<'_>,
        fields: &[Field<'_>],
        path: &'r mut Vec<u8>,
        host: &'r mut Vec<u8>,
    ) -> Result<(&'r str, Target<'r>, RouteIndex), (Reason, Option<RouteIndex>)> {
        let unrouted = |reason| (reason, None);
        if reply::is_refused(head.method) {
            return Err(unrouted(Reason::MethodRefused));
        }
        let host = normalise_host(head.host, host).map_err(unrouted)?;
        let target = normalise(head.path, head.query, path).map_err(unrouted)?;
        if target.length() > self.snapshot.codec.target_bytes_max {
            // An encoded backslash takes three times the room.
            return Err(unrouted(Malformed::TargetTooLong.into()));
        }
        let route = self.snapshot.router.find(host, target.path, head.method_text, fields);
        let route = route.ok_or(unrouted(Reason::NoRoute))?;
        if matches!(head.body, BodyLength::Exact(n) if n > self.snapshot.config.limits.request_body_bytes_max)
        {
            return Err((Reason::BodyTooLarge, Some(route)));
        }
        if !host.is_empty() {
            return Ok((host, target, route));
        }
        // HTTP/1.0 may name no host; nodes speak HTTP/1.1, where each request has one. Under that name it must be the
        // same request, or its answer would be stored as that of another.
        let host = &*self.snapshot.routes[route.0].host_of_unnamed;
        if self.snapshot.router.find(host, target.path, head.method_text, fields) != Some(route) {
            return Err((Reason::BadHost, Some(route)));
        }
        Ok((host, target, route))
    }

    /// A proxy of ours may have named the request.
    fn name(&self, head: &RequestHead<'_>, trusted: bool) -> RequestId {
        let given = if trusted { tenfold_http1::find(&head.fields, "x-request-id") } else { None };
        given.and_then(RequestId::adopt).unwrap_or_else(|| self.local.ids.borrow_mut().make())
    }

    fn client(&self, head: &RequestHead<'_>, conditional: bool) -> Client {
        Client {
            ip: client_ip(self.peer, &head.fields, &self.snapshot.config.trusted_proxies),
            http10: head.version == Version::Http10,
            keep_alive: head.keep_alive && !self.last,
            head_only: head.method == Method::Head,
            conditional,
            expect_continue: head.expect_continue,
        }
    }

    /// Must the connection close after an answer that leaves the request's body unread?
    fn closes(&self, head: &RequestHead<'_>, client: &Client) -> bool {
        !body::is_empty(head.body) || self.local.closes(client)
    }

    /// `OPTIONS *` asks about the server as a whole: RFC 9110 §9.3.7.
    fn describe_server(
        &self,
        request_id: &RequestId,
        head: &RequestHead<'_>,
        client: &Client,
        out: &mut Vec<u8>,
    ) -> Step {
        let close = self.closes(head, client);
        out.extend_from_slice(
            b"HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE\r\nDate: ",
        );
        out.extend_from_slice(&self.local.worker.clock.http_date());
        out.extend_from_slice(b"\r\n");
        let cache = CacheStatus::forward(Forward::Method);
        Ours { request_id, cache, key: None, http10: client.http10, close }.write(out);
        let account = Account { status: 204, ..Account::new(self.now) };
        account.close(self.local, self.snapshot, None, || as_received(head, client, request_id));
        Step::Answered { body: None, close }
    }

    fn refuse(
        &self,
        head: &RequestHead<'_>,
        request_id: &RequestId,
        client: &Client,
        (reason, route): (Reason, Option<RouteIndex>),
        out: &mut Vec<u8>,
    ) -> Step {
        let close = self.closes(head, client) || head.method == Method::Connect;
        let date = &self.local.worker.clock.http_date();
        write_refusal(out, &Refusal { reason, request_id, close, head_only: client.head_only, date });
        let account = Account { status: reason.status(), reason: Some(reason), ..Account::new(self.now) };
        account.close(self.local, self.snapshot, route, || as_received(head, client, request_id));
        Step::Answered { body: None, close }
    }

    /// Refuses bytes that are not a request. The connection closes: where the next one begins is unknown.
    pub(crate) fn refuse_bytes(&self, reason: Reason, out: &mut Vec<u8>) -> Step {
        let request_id = self.local.ids.borrow_mut().make();
        let date = &self.local.worker.clock.http_date();
        write_refusal(out, &Refusal { reason, request_id: &request_id, close: true, head_only: false, date });
        let account = Account { status: reason.status(), reason: Some(reason), ..Account::new(self.now) };
        let nothing =
            Described { client: self.peer, request_id: &request_id, method: b"", host: b"", target: b"" };
        account.close(self.local, self.snapshot, None, || nothing);
        Step::Answered { body: None, close: true }
    }

    fn look_up(&self, request: &Request<'_, '_>, key: &mut KeyBuf, out: &mut Vec<u8>) -> Step {
        let route = &self.snapshot.routes[request.route.0];
        let facts = RequestFacts::read(request.head.method_text, request.fields).under(&route.rule);
        let facts = facts.needing(self.floor(request));
        let now = Timestamp(self.local.worker.clock.unix_ms_at(self.now));
        if facts.bypass().is_none() {
            let Target { path, query } = request.target;
            let target = (path.as_bytes(), query.map(str::as_bytes));
            route.key(key, request.scheme, request.host.as_bytes(), target, &facts);
        }
        let question = Question { facts: &facts, key, now };
        match self.local.cache().lookup(key, &facts, &route.rule, now) {
            Lookup::Hit(hit) => {
                if hit.early.is_some_and(|early| early.is_due(self.local.ids.borrow_mut().draw())) {
                    self.refresh(request, &question, &hit);
                }
                self.answer_hit(request, &question, &hit, CacheOutcome::Hit, out)
            }
            Lookup::Stale { hit, refresh } => {
                if refresh {
                    self.refresh(request, &question, &hit);
                }
                let outcome = if hit.suspect { CacheOutcome::Hit } else { CacheOutcome::Stale };
                self.answer_hit(request, &question, &hit, outcome, out)
            }
            Lookup::Revalidate { entry, serve_if_error, requested } => {
                let forward = if requested { Forward::Request } else { Forward::Stale };
                let mut step = self.join(
                    request,
                    &question,
                    Some(Arc::clone(&entry)),
                    CacheStatus::forward(forward),
                    out,
                );
                if let Step::Pass(task) = &mut step
                    && serve_if_error
                {
                    task.stale = Some(entry);
                }
                step
            }
            Lookup::Miss(reason) => self.join(request, &question, None, self.missed(reason), out),
            Lookup::Bypass(reason) => {
                let method = reason == tenfold_cache::BypassReason::Method;
                let forward = CacheStatus::forward(if method { Forward::Method } else { Forward::Bypass });
                let cache =
                    if method { forward } else { CacheStatus { detail: Some(reason.as_str()), ..forward } };
                Step::Pass(self.task(request, cache, CacheOutcome::Bypass))
            }
            Lookup::GatewayTimeout => {
                let refused = (Reason::NotCached, Some(request.route));
                self.refuse(request.head, &request.request_id, &request.client, refused, out)
            }
        }
    }
}

impl Entrance<'_> {
    /// What a request's client has to see, as the cache knows it.
    fn floor(&self, request: &Request<'_, '_>) -> Floor {
        match (&self.snapshot.seal, &request.token) {
            (Some(seal), Some(token)) => seal.floor(token),
            _ => Floor::NONE,
        }
    }

    /// What is said of a miss.
    fn missed(&self, reason: MissReason) -> CacheStatus {
        match reason {
            MissReason::Vary => CacheStatus::forward(Forward::VaryMiss),
            MissReason::Partial => CacheStatus::forward(Forward::Partial),
            MissReason::OwnWrite => {
                self.local.shared.metrics.passed_over.add(1);
                CacheStatus { detail: Some(reason.as_str()), ..CacheStatus::forward(Forward::Stale) }
            }
            _ => CacheStatus::forward(Forward::UriMiss),
        }
    }
}

/// Is this a method whose answers are stored?
fn is_asked_for(method: Method) -> bool {
    matches!(method, Method::Get | Method::Head)
}

/// What the cache is shown of a request.
struct Question<'s> {
    facts: &'s RequestFacts<'s>,
    key: &'s KeyBuf,
    now: Timestamp,
}

impl Entrance<'_> {
    fn answer_hit(
        &self,
        request: &Request<'_, '_>,
        question: &Question<'_>,
        hit: &Hit,
        outcome: CacheOutcome,
        out: &mut Vec<u8>,
    ) -> Step {
        let Request { head, client, request_id, .. } = request;
        let close = self.closes(head, client);
        let detail = hit.instead_of_error.then_some("stale_if_error");
        let cache = CacheStatus { detail, ..CacheStatus::hit(hit.ttl_s) };
        let key = self.rule(request.route).shows_key().then(|| request.shown_key());
        let ours = Ours { request_id, cache, key, http10: client.http10, close };
        let shown = hit.entry.represent(question.facts, self.rule(request.route));
        if let Some(coding) = shown.wanted {
            self.local.cache().want_for(question.key, &hit.entry, coding);
        }
        let whom = (client.head_only, hit.age_s);
        let stored = write_stored(out, &hit.entry, &shown, question.facts, whom, &ours);
        let (status, body_bytes) = (stored.status, stored.body_bytes);
        let account = Account { status, cache: Some(outcome), body_bytes, ..Account::new(self.now) };
        let mut target = Vec::new();
        let whole = &mut target;
        account.close(self.local, self.snapshot, Some(request.route), move || request.described(whole));
        // Several small answers to requests that came together leave together.
        Step::Answered { body: stored.rest, close }
    }

    fn join(
        &self,
        request: &Request<'_, '_>,
        question: &Question<'_>,
        revalidating: Option<Arc<tenfold_cache::Entry>>,
        cache: CacheStatus,
        out: &mut Vec<u8>,
    ) -> Step {
        let rule = self.rule(request.route);
        let worker = self.local.worker.index;
        match self.local.cache().join(question.key, question.facts, rule, revalidating, worker, question.now)
        {
            Join::Lead(fill, follower) => {
                self.start(request, fill);
                Step::Follow(self.task(request, cache, CacheOutcome::Miss), follower)
            }
            Join::Follow(follower) => {
                let cache = CacheStatus { collapsed: true, ..cache };
                Step::Follow(self.task(request, cache, CacheOutcome::Collapsed), follower)
            }
            Join::Stored(hit) => self.answer_hit(request, question, &hit, CacheOutcome::Hit, out),
            Join::Alone(reason) => {
                let cache = CacheStatus { detail: Some(reason.as_str()), ..cache };
                let mut task = self.task(request, cache, CacheOutcome::Bypass);
                // A fill that has outgrown the cache says that this answer would too.
                let records = matches!(reason, AloneReason::KnownUncacheable | AloneReason::Range);
                if !overrides_method(request.fields) {
                    task.watch = Some(self.local.cache().watch(question.key, records, question.now));
                }
                Step::Pass(task)
            }
        }
    }

    fn refresh(&self, request: &Request<'_, '_>, question: &Question<'_>, hit: &Hit) {
        let rule = self.rule(request.route);
        let worker = self.local.worker.index;
        let refills = &self.snapshot.routes[request.route.0].cluster.refills;
        let renewal = Renewal { entry: Arc::clone(&hit.entry), refills };
        if let Some(fill) =
            self.local.cache().refresh(question.key, question.facts, rule, renewal, worker, question.now)
        {
            self.local.shared.metrics.refreshes.add(1);
            self.start(request, fill);
        }
    }

    /// Runs a fill in a task of its own: it goes on for whoever follows, not for whoever began it.
    fn start(&self, request: &Request<'_, '_>, fill: Fill) {
        let plain = self.write_head(request, true);
        let cluster = Arc::clone(&self.snapshot.routes[request.route.0].cluster);
        fetch::begin(self.local, cluster, fill, plain, self.snapshot.config.limits.send_rate_min);
    }

    fn task(&self, request: &Request<'_, '_>, cache: CacheStatus, outcome: CacheOutcome) -> Box<Task> {
        let mut head = self.write_head(request, false);
        match Framing::of(request.head.body) {
            Framing::Exact(length) => write_content_length(&mut head, length),
            Framing::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if request.head.expect_continue {
            head.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Box::new(Task {
            snapshot: Arc::clone(self.snapshot),
            route: request.route,
            request: NodeRequest::new(head, request.head.method, request.head.body),
            client: request.client,
            request_id: request.request_id,
            token: request.token,
            cache,
            watch: None,
            recording: RefCell::default(),
            purges: self.local.cache().purges_so_far(),
            stale: None,
            account: Account { cache: Some(outcome), ..Account::new(self.now) },
        })
    }

    /// The head for a node, without framing and without its end.
    fn write_head(&self, request: &Request<'_, '_>, for_cache: bool) -> Vec<u8> {
        let mut out = take_outbox();
        let sealed = self.snapshot.seal.as_ref().zip(request.token.as_ref());
        let position = sealed.map(|(seal, token)| seal.write(token));
        let forwarding = Forwarding {
            peer: self.peer,
            client: request.client.ip,
            host: request.host,
            request_id: &request.request_id,
            for_cache,
            unencoded: for_cache && self.rule(request.route).compress().is_some(),
            position: position.as_deref(),
        };
        let Request { head, target, fields, scheme, .. } = *request;
        let outgoing = Outgoing { method: head.method_text, target, fields, scheme };
        write_request_head(&mut out, &outgoing, &forwarding, &mut self.local.ids.borrow_mut());
        out
    }
}

impl Request<'_, '_> {
    fn shown_key(&self) -> ShownKey<'_> {
        let query = self.target.query.map(str::as_bytes);
        ShownKey { host: self.host.as_bytes(), path: self.target.path.as_bytes(), query }
    }

    /// For the log. `whole` is scratch for the target.
    fn described<'a>(&'a self, whole: &'a mut Vec<u8>) -> Described<'a> {
        whole.extend_from_slice(self.target.path.as_bytes());
        if let Some(query) = self.target.query {
            whole.push(b'?');
            whole.extend_from_slice(query.as_bytes());
        }
        Described {
            client: self.client.ip,
            request_id: &self.request_id,
            method: self.head.method_text.as_bytes(),
            host: self.host.as_bytes(),
            target: whole,
        }
    }
}

/// For the log, where no normal form was found or asked for.
fn as_received<'a>(head: &'a RequestHead<'_>, client: &Client, request_id: &'a RequestId) -> Described<'a> {
    Described {
        client: client.ip,
        request_id,
        method: head.method_text.as_bytes(),
        host: head.host,
        target: head.target,
    }
}
