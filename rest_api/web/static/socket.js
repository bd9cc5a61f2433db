// The WebSocket to /sign/ws: finds it again when it is lost, and never has a message signed a second time by itself.
//
// A message is *queued* until it was handed to an open connection, then *sent*. Queued ones go out when there is a
// connection. Sent ones without an answer when the connection ends are *lost*: they may or may not have been signed,
// and only the person at the screen can say whether to ask again. But where the service ends it saying that they were
// not taken, they are queued again.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 20_000;
const SERVICE_RESTART = 1012;
const TRY_AGAIN_LATER = 1013;
const PATIENT_FAILURES = 5;
const STABLE_AFTER_MS = 5_000;
const OPEN_WITHIN_MS = 10_000;
// Longer than any deadline of the service: a connection that is so long silent is dead, whatever the system says.
const ANSWER_WITHIN_MS = 40_000;

export class Connection {
  #url;
  #on;
  #socket = null;
  #failures = 0;
  #timer = null;
  #stable = null;
  #queued = new Map();
  // By id, the message and when it was sent.
  #sent = new Map();
  #token = null;

  // `on`: {state({name, retryAt, failures, reason}), queued(id), sent(id), answer(id, body), lost(ids), caller(body)}
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    setInterval(() => this.#watch(), 1_000);
    addEventListener("online", () => this.retryNow());
    this.#open();
  }

  // Whether an answer is still to come, or a message still to go.
  get isOwed() {
    return this.#queued.size + this.#sent.size > 0;
  }

  ask(message) {
    this.#queued.set(message.id, message);
    this.#flush();
  }

  // Forgets a message that is with no service. Returns whether that was so.
  withdraw(id) {
    return this.#queued.delete(id);
  }

  introduce(token) {
    this.#token = token;
    this.#sendToken();
  }

  retryNow() {
    if (this.#socket === null) this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    this.#on.state({ name: "connecting", failures: this.#failures });
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    const patience = setTimeout(() => this.#end(socket, "the service did not answer in time"), OPEN_WITHIN_MS);
    socket.onopen = () => {
      clearTimeout(patience);
      this.#stable = setTimeout(() => (this.#failures = 0), STABLE_AFTER_MS);
      this.#on.state({ name: "open", failures: 0 });
      this.#sendToken();
      this.#flush();
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => {
      clearTimeout(patience);
      // No room for a connection that asks nothing: many that come again at once would drive each other out.
      if (event.code === TRY_AGAIN_LATER) this.#failures = Math.max(this.#failures, PATIENT_FAILURES);
      if (event.code === SERVICE_RESTART) this.#takeBack();
      this.#end(socket, event.reason);
    };
  }

  #takeBack() {
    const later = this.#queued;
    this.#queued = new Map([...this.#sent].map(([id, { message }]) => [id, message]));
    this.#sent.clear();
    for (const id of this.#queued.keys()) this.#on.queued(id);
    for (const [id, message] of later) this.#queued.set(id, message);
  }

  #end(socket, reason) {
    if (socket !== this.#socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    clearTimeout(this.#stable);
    this.#socket = null;
    const lost = [...this.#sent.keys()];
    this.#sent.clear();
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    // Spread out, so that all pages do not come back to a restarted service in one moment.
    const delay = longest * (0.5 + Math.random() / 2);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#on.state({ name: "waiting", retryAt: Date.now() + delay, failures: this.#failures, reason });
    if (lost.length > 0) this.#on.lost(lost);
  }

  #flush() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (const [id, message] of this.#queued) {
      this.#queued.delete(id);
      this.#sent.set(id, { message, at: Date.now() });
      this.#on.sent(id);
      this.#socket.send(JSON.stringify(message));
    }
  }

  #sendToken() {
    if (this.#token === null || this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify({ id: "token", token: this.#token }));
  }

  #receive(data) {
    let body;
    try {
      body = JSON.parse(data);
    } catch {
      return this.#end(this.#socket, "the service sent something that is not JSON");
    }
    if (body.id === "token") return this.#on.caller(body);
    // An answer to nothing that was asked, or a second one, is dropped.
    if (this.#sent.delete(body.id)) this.#on.answer(body.id, body);
  }

  #watch() {
    const oldest = this.#sent.values().next().value;
    if (oldest !== undefined && Date.now() - oldest.at > ANSWER_WITHIN_MS) {
      this.#end(this.#socket, "no answer came for a long time");
    }
  }
}
