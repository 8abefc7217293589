//! Every size and time limit, in one place, each with its reason.
//!
//! Sizes are bytes. A limit is inclusive: exactly this much is accepted, one more is refused.

use std::time::Duration;

// --- the auth plugin protocol ---

/// New state on fd 3. The protocol's own number; large enough for any token cache, small enough to hold in memory.
pub const PLUGIN_STATE_MAX: usize = 10 * 1024 * 1024;
/// The token on stdout, and therefore what a CA and a policy server accept. Kerberos tickets with many groups reach 48 KiB.
pub const TOKEN_MAX: usize = 64 * 1024;
/// How much of a plugin's stderr is kept (its end); the rest is read and dropped.
pub const PLUGIN_STDERR_TAIL: usize = 64 * 1024;
/// How much progress (fd 4) is kept for those who join a run late.
pub const PROGRESS_MAX: usize = 64 * 1024;
/// One directive of a plugin (a line on fd 4 that begins with `#epithet: `); a longer one is ignored.
pub const DIRECTIVE_MAX: usize = 2048;
/// Directives of a plugin that wait to be read; more are ignored. A plugin has a few in all.
pub const DIRECTIVES_MAX: usize = 64;
/// How long a plugin may take to revoke what its state stands for, at logout.
pub const LOG_OUT_DEADLINE: Duration = Duration::from_secs(15);
/// How long a plugin may take by default: a person has to find the browser window.
pub const PLUGIN_DEADLINE: Duration = Duration::from_secs(300);
/// The shortest and longest deadline that configuration may ask for.
pub const PLUGIN_DEADLINE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(900));
/// After a plugin exited, how long its streams may stay open in somebody else's hands before they are taken as they are.
pub const PLUGIN_STREAM_GRACE: Duration = Duration::from_secs(1);
/// Between SIGTERM and SIGKILL.
pub const PLUGIN_KILL_AFTER: Duration = Duration::from_secs(2);
/// A token younger than this serves further certificate requests without running the plugin again.
pub const TOKEN_REUSE: Duration = Duration::from_secs(60);
/// How often a certificate request may be answered 401 before the broker gives up.
pub const TOKEN_ATTEMPTS: usize = 3;
/// How long background callers wait after one, two, three and more logins that nobody completed.
pub const STORM_COOL_DOWN: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];

// --- between ssh's `match` and the broker ---

/// A request line. A connection's description is under 2 KiB; the rest is room to grow.
pub const BROKER_LINE_MAX: usize = 64 * 1024;
/// A reply line: progress chunks are small, `inspect` with 4 096 agents is not.
pub const BROKER_REPLY_MAX: usize = 16 * 1024 * 1024;
/// How long a peer may take to send its request line.
pub const BROKER_READ_DEADLINE: Duration = Duration::from_secs(5);
/// Peers served at once.
pub const BROKER_CONNECTIONS: usize = 256;
/// How long `match` waits for the broker's first byte; a broker that lives answers at once.
pub const MATCH_FIRST_BYTE: Duration = Duration::from_secs(5);
/// How long `match` waits between two lines; the broker sends a keepalive well before.
pub const MATCH_SILENCE: Duration = Duration::from_secs(20);
/// How often the broker tells a waiting `match` that it is still there.
pub const BROKER_KEEPALIVE: Duration = Duration::from_secs(2);

/// Connections that somebody logged in by since the broker started and whose agents are gone: 100 bytes each.
pub const CONNECTIONS_REMEMBERED: usize = 4096;
/// How long `ssh -G` may take to print where its master would be; people's own `Match exec` lines are run for it.
pub const SSH_PRINT_DEADLINE: Duration = Duration::from_secs(2);
/// What it may print: about a hundred lines, and those of the person's that may be repeated.
pub const SSH_PRINT_MAX: usize = 256 * 1024;
/// `ssh -G` at once; more wait for their turn.
pub const SSH_PRINTS: usize = 2;
/// The asking ssh's command line and environment, each, as the kernel gives them.
pub const SSH_WORDS_MAX: usize = 1024 * 1024;
/// How long `ssh -V` may take to say its version.
pub const SSH_VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// Connections of which the phases are remembered, for `epithet trace last`.
pub const TRACES_MAX: usize = 64;
/// Phases remembered of one connection: many ssh may use one agent.
pub const TRACE_PHASES_MAX: usize = 32;

// --- agents ---

/// An agent message, as OpenSSH's `AGENT_MAX_LEN`.
pub const AGENT_FRAME_MAX: usize = 256 * 1024;
/// Session ids bound on one agent connection, as OpenSSH's `AGENT_MAX_SESSION_IDS`.
pub const AGENT_BINDINGS_MAX: usize = 16;
/// A session id, as OpenSSH's `AGENT_MAX_SID_LEN`.
pub const AGENT_SESSION_ID_MAX: usize = 128;
/// Connections to one agent socket.
pub const AGENT_CONNECTIONS: usize = 64;
/// Processes that asked for a connection and have not connected to its agent yet; of more, the oldest is forgotten.
pub const AGENT_ASKERS_MAX: usize = 1024;
/// How long a peer may take to complete a frame it began.
pub const AGENT_PARTIAL_FRAME: Duration = Duration::from_secs(30);
/// Keys of the person's own agent that are offered after ours. sshd gives up after six.
pub const CHAINED_KEYS_MAX: usize = 64;
/// How long the person's own agent may take to list its keys.
pub const CHAINED_LIST_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to sign: somebody may have to touch a security key, or to confirm.
pub const CHAINED_SIGN_DEADLINE: Duration = Duration::from_secs(60);
/// Before its end a certificate is treated as ended, so that no login begins that cannot finish.
pub const CERTIFICATE_EXPIRY_BUFFER: Duration = Duration::from_secs(5);
/// How often the broker looks whether its run directory and socket are still there, and ssh and the programs the same.
pub const RUN_DIR_LOOK: Duration = Duration::from_secs(5);
/// How often ended agents are looked for and removed.
pub const AGENT_SWEEP: Duration = Duration::from_secs(10);
/// Agents at once unless configured, each one socket and one descriptor.
pub const AGENTS_MAX: usize = 4096;
/// The fewest and the most agents that configuration may ask for.
pub const AGENTS_MAX_RANGE: (usize, usize) = (1, 65_536);
/// How long an agent stays that nobody has asked for a certificate, after `ssh -G` or `ssh -O`.
pub const LAZY_AGENT_STAYS: Duration = Duration::from_secs(600);
/// Keys made ahead. More connections at once make their own, in a tenth of a millisecond.
pub const KEYS_AHEAD: usize = 8;
/// How often agents are looked through for certificates to renew, when that is configured.
pub const RENEW_LOOK: Duration = Duration::from_secs(2);
/// How long before its end a certificate is renewed, or a quarter of its life before if that is less.
pub const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Renewals at once: thousands of agents may be due, and one CA may be slow.
pub const RENEWALS: usize = 16;
/// An agent by which somebody logged in within this time is in use, and renewed.
pub const RENEW_IN_USE: Duration = Duration::from_secs(600);
/// Agents that ssh are connected to at the same moment, for which there are descriptors beside the agents' own.
pub const AGENTS_IN_USE: usize = 1024;
/// Descriptors that agents and requests leave to everything else, however low the limit of open files is: the runtime's,
/// the log and the lock (16), a plugin's pipes on both sides while it is started (12), CAs and their certificates (12).
pub const DESCRIPTORS_RESERVED: usize = 40;

// --- certificates ---

/// Before now, for hosts whose clock is behind.
pub const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(60);
/// The CA's own ceiling on a certificate's life unless configured.
pub const CERTIFICATE_TTL_MAX: Duration = Duration::from_secs(600);
/// A certificate's life when policy names none.
pub const CERTIFICATE_TTL: Duration = Duration::from_secs(300);
/// Principals in one certificate.
pub const PRINCIPALS_MAX: usize = 16;
/// The value of a critical option or an extension: a command line, or a few hundred networks.
pub const OPTION_VALUE_MAX: usize = 4096;
/// A key id, which sshd logs whole.
pub const KEY_ID_MAX: usize = 512;

// --- the CA's key in an ssh-agent ---

/// How long an ssh-agent may take for a signature, the wait for a free connection included; a security module has its time.
pub const CA_AGENT_DEADLINE: Duration = Duration::from_secs(5);
/// Connections to the agent that holds a CA key: agents of cloud services answer several at once, others queue them.
pub const CA_AGENT_CONNECTIONS: usize = 8;
/// Keys that a CA publishes and a policy server knows at once: the one that signs, the next and the last, with room.
pub const CA_KEYS_MAX: usize = 16;
/// Passphrases of CA keys, all of them, as a file or a descriptor gives them.
pub const PASSPHRASES_MAX: usize = 16 * 1024;
/// How often a policy server that was given the CA's URL asks for its keys again.
pub const CA_KEYS_REFRESH: Duration = Duration::from_secs(300);
/// How often, at most, a policy server asks for them because a request is signed by a key that it does not know: as long a CA
/// whose key was exchanged may be refused, and all that strangers' requests can make of it.
pub const CA_KEYS_ASK_PAUSE: Duration = Duration::from_secs(3);
/// How long such a request may wait for the CA's keys; the CA waits [`POLICY_DEADLINE`] for its answer.
pub const CA_KEYS_ASK_DEADLINE: Duration = Duration::from_secs(2);
/// How long a line of the audit log may take; then its request is answered 503, well before the broker asks another CA.
pub const AUDIT_DEADLINE: Duration = Duration::from_secs(2);
/// Lines that wait to be written, about a kilobyte each: as many as there may be connections.
pub const AUDIT_WAITING_MAX: usize = 4096;
/// Lines of the audit log a second about requests that the CA refuses before policy is asked; more are counted. That is half a
/// gigabyte a day at most.
pub const AUDIT_TURNED_AWAY: usize = 10;
/// Certificates of which the request ids are remembered, so that no other gets the same: 2 MiB.
pub const REQUEST_IDS_MAX: usize = 65_536;
/// How long a signature that failed counts against the CA's readiness.
pub const KEY_FAILING: Duration = Duration::from_secs(10);

// --- HTTP between broker, CA and policy server ---

/// A request or reply body.
pub const HTTP_BODY_MAX: usize = 64 * 1024;
/// A body that carries a user's token inside JSON: the token may need base64 and the connection its own room.
pub const POLICY_BODY_MAX: usize = TOKEN_MAX / 3 * 4 + 16 * 1024;
/// Names of groups in an audit line, all of them; of more the line says how many were left out. What rules know of one
/// person's groups is a few names.
pub const AUDIT_GROUPS_MAX: usize = 4096;
/// How strongly somebody logged in, or by what means (`acr`, one `amr`), as an audit line has it; `acr` is often a URL.
pub const AUDIT_LOGIN_WORD_MAX: usize = 256;
/// Means of a login (`amr`) in an audit line.
pub const AUDIT_LOGIN_WORDS_MAX: usize = 16;
/// The header that says on what grounds a login was refused: a name, a rule, and a few hundred groups.
pub const GROUNDS_MAX: usize = 8 * 1024;
/// All headers of a request: a token of the largest size fits, encoded.
pub const HTTP_HEADER_MAX: usize = TOKEN_MAX / 3 * 4 + 16 * 1024;
/// Bytes of requests that a server holds at once: thousands of usual ones, or three hundred of the largest.
pub const HTTP_ROOM: usize = 32 * 1024 * 1024;
/// Bytes of requests that it holds from one address that is not this machine: a quarter of that.
pub const HTTP_ROOM_PER_ADDRESS: usize = 8 * 1024 * 1024;
/// How long a client may take to send its headers, and its body.
pub const HTTP_READ_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may leave unread what it was sent; its connection is closed then.
pub const HTTP_WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// After SIGTERM, how long clients are taken in that the system has connected already.
pub const HTTP_LAST_CALL: Duration = Duration::from_millis(20);
/// After SIGTERM, how long an HTTP/1.1 connection may bring one more request, which may have been on its way.
pub const HTTP_GOODBYE: Duration = Duration::from_millis(250);
/// How long an HTTP/2 connection is kept on which nothing is asked: longer than the broker keeps one ([`CA_IDLE`]).
pub const HTTP2_IDLE: Duration = Duration::from_secs(120);
/// Open connections of a server, and of one address.
pub const HTTP_CONNECTIONS: usize = 4096;
/// Open connections from one address that is not this machine.
pub const HTTP_CONNECTIONS_PER_ADDRESS: usize = 64;
/// Tokens that are not believed from one address within [`FAILED_TOKENS_WINDOW`]; then it waits. Many people may share one.
pub const FAILED_TOKENS_MAX: usize = 100;
/// The time in which refused tokens of an address are counted together.
pub const FAILED_TOKENS_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose refused tokens are counted: 64 bytes each.
pub const FAILED_TOKENS_ADDRESSES: usize = 16 * 1024;
/// An `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;
/// Certificates that are given again to whoever asks again, each about a kilobyte.
pub const REPEATS_MAX: usize = 4096;
/// How long the broker waits for a CA.
pub const CA_DEADLINE: Duration = Duration::from_secs(15);
/// How long the broker waits for a TCP and TLS connection to a CA before it tries the next.
pub const CA_CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a connection to a CA is kept for the next request.
pub const CA_IDLE: Duration = Duration::from_secs(90);
/// How long a CA is waited for before the next one is asked as well: as long as it usually takes, within these bounds.
pub const HEDGE_RANGE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// The same for a CA of which too few answers are known.
pub const HEDGE_UNKNOWN: Duration = Duration::from_secs(2);
/// How long a CA is waited for that is asked which hosts are its own, before the next one is asked as well.
pub const DISCOVERY_STAGGER: Duration = Duration::from_millis(500);
/// The longest time that a failing CA is left alone, unless configured; the first time it is a second.
pub const CA_COOLDOWN: Duration = Duration::from_secs(60);
/// How long the CA waits for the policy server.
pub const POLICY_DEADLINE: Duration = Duration::from_secs(5);
/// What the configuration may make of [`POLICY_DEADLINE`]: the broker waits [`CA_DEADLINE`] for the CA.
pub const POLICY_DEADLINE_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Requests of a CA that wait for the policy server at once, each with a connection of its own; more get 503 at once. A quarter
/// of [`HTTP_CONNECTIONS`], so that those who need no policy find room.
pub const POLICY_WAITING_MAX: usize = HTTP_CONNECTIONS / 4;
/// The life of the CA's own token towards the policy server.
pub const SERVICE_TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How far two servers' clocks may be apart.
pub const SERVICE_CLOCK_LEEWAY: Duration = Duration::from_secs(5);
/// How long a discovery document is good for.
pub const DISCOVERY_MAX_AGE: Duration = Duration::from_secs(300);
/// How long it counts which hosts the CA said are its own, while it cannot be reached.
pub const PATTERNS_REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Lines of the log that wait for whoever reads it; of more, the number is logged.
pub const LOG_WAITING_MAX: usize = 4096;
/// How long the end of a process waits for the log's last lines to be written.
pub const LOG_FAREWELL: Duration = Duration::from_millis(500);
/// After SIGTERM, how long requests in flight may take to finish.
pub const DRAIN: Duration = Duration::from_secs(2);

// --- OpenID Connect ---

/// A discovery document, a key set or a token reply.
pub const OIDC_BODY_MAX: usize = 256 * 1024;
/// Keys in a key set.
pub const OIDC_KEYS_MAX: usize = 100;
/// TCP and TLS to a provider.
pub const OIDC_CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// A whole request to a provider.
pub const OIDC_DEADLINE: Duration = Duration::from_secs(30);
/// Redirects that a discovery document may take within its server; keys and tokens take none.
pub const OIDC_REDIRECTS_MAX: usize = 3;
/// Connections to the listener of a login that are served at once. Browsers open a few ahead of need.
pub const LOGIN_CONNECTIONS_MAX: usize = 32;
/// A request to the listener of a login. An address of 8 000 characters is at the end of what browsers and providers do.
pub const LOGIN_REQUEST_MAX: usize = 8192;
/// How long a browser may take to send it.
pub const LOGIN_REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last page may take to reach the browser before the login ends without it.
pub const LOGIN_PAGE_DEADLINE: Duration = Duration::from_secs(2);
/// How long a browser may be away before a person is offered another way: an error page of a provider never comes back.
pub const LOGIN_OTHER_WAY: Duration = Duration::from_secs(30);
/// How far a provider's clock and ours may be apart.
pub const OIDC_LEEWAY: Duration = Duration::from_secs(60);
/// Between two fetches of a key set, because of an unknown key id or ahead of time.
pub const JWKS_REFETCH: Duration = Duration::from_secs(60);
/// How often a server looks whether a key set is to be fetched ahead of time.
pub const JWKS_LOOK: Duration = Duration::from_secs(10);
/// The longest pause before a key set is fetched again ahead of time when the provider was down: it doubles from a minute.
pub const JWKS_PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long the last good key set serves when the provider is down.
pub const JWKS_STALE: Duration = Duration::from_secs(24 * 3600);

// --- a person's own machine ---

/// How long `epithet agent --background` waits for the broker to serve; it is there within three seconds without a CA.
pub const BACKGROUND_START: Duration = Duration::from_secs(30);
/// How long `epithet agent stop` waits for the broker's end, which takes two seconds, and four when a plugin does not let itself be ended.
pub const BACKGROUND_STOP: Duration = Duration::from_secs(10);
/// How long it waits for the end of one that it had to kill.
pub const BACKGROUND_KILL: Duration = Duration::from_secs(5);
/// How long a start in the background waits for the broker that is there already to answer: one that starts at the same
/// moment, or whose socket has been removed, answers within this time.
pub const BACKGROUND_ANSWER: Duration = Duration::from_secs(8);
/// How long `epithet doctor` waits for ssh to print its configuration, which takes it milliseconds.
pub const DOCTOR_PRINT: Duration = Duration::from_secs(10);
/// How long `epithet doctor` waits for a try to log in: ten seconds to connect, and a slow host's handshake.
pub const DOCTOR_TRY: Duration = Duration::from_secs(40);
/// How much `epithet doctor` reads of what a program that it tries says, in bytes of each of its outputs: hundreds of times
/// what ssh logs of a login.
pub const DOCTOR_SAID_MAX: usize = 64 * 1024;
/// How many jump hosts `epithet doctor` follows; more than that is a configuration that leads back to itself.
pub const DOCTOR_JUMPS_MAX: usize = 8;
/// How large a background broker's log may be when it starts; a larger one is put aside, over the one before.
pub const BACKGROUND_LOG_MAX: u64 = 4 * 1024 * 1024;

// --- rules ---

/// A file of rules or of expected decisions: rules for ten thousand users are about 1 MiB.
pub const RULES_FILE_MAX: u64 = 16 * 1024 * 1024;
/// Errors that are told of one file of rules; each is found by reading the file again without the entry before it.
pub const RULES_ERRORS_MAX: usize = 100;
/// How far it is followed what rules cover together, in places of their patterns, before a rule counts as needed: a second.
pub const RULES_COVER_STEPS: usize = 100_000;
/// How often the files of a running server are looked at; a change is read when it is this old and nothing moved since.
pub const RULES_WATCH: Duration = Duration::from_secs(1);

// --- names ---

/// A host name, as DNS has it.
pub const HOST_NAME_MAX: usize = 255;
/// A user name or principal.
pub const PRINCIPAL_MAX: usize = 128;
/// A profile's name, part of a socket path.
pub const PROFILE_NAME_MAX: usize = 32;
/// A pattern of hosts.
pub const PATTERN_MAX: usize = 256;
/// A Unix socket's path on Linux (108 with the closing NUL); macOS has 104.
pub const SOCKET_PATH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };
