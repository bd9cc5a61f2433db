// The panel: replicas, epoch, quorum margin, refreshes and ceremony of the chosen key. Asked for every two seconds while
// it is seen, and more often while a ceremony runs or is due: one takes less than a second.

import { announce, element, find, setText, stamp } from "./dom.js";

const EVERY_MS = 2_000;
const SOON_EVERY_MS = 400;
const SOON_MS = 3_000;
const LONG_DUE_MS = 10_000;
const WITHIN_MS = 5_000;
const SKEW_SHOWN_MS = 250;

const PHASES = { announce: "announce", deal: "deal", verdict: "verdict", ready: "ready", commit: "commit" };
const KINDS = { generate: "Key generation", reshare: "Share refresh" };

export class ClusterPanel {
  #panel = find("#cluster");
  #keys;
  #chosen;
  #exists;
  #heardAt = null;
  #failed = false;
  #said = "";
  #timer = null;
  #times = null;
  #shown = null;

  // `keys`: key id -> key. `chosen()`: the key id that is shown. `exists()`: called whenever a key is there to sign.
  constructor(keys, chosen, exists) {
    this.#exists = exists;
    this.#keys = keys;
    this.#chosen = chosen;
    document.addEventListener("visibilitychange", () => this.#turn());
    this.#turn();
    setInterval(() => this.#age(), 1_000);
  }

  refresh() {
    this.#turn();
  }

  async #turn() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    try {
      const answer = await fetch("/v1/cluster", { signal: AbortSignal.timeout(WITHIN_MS), cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      // Times in the answer are of the service's clock, which need not be this one.
      const ahead = Date.parse(answer.headers.get("date") ?? "") - Date.now();
      this.#show(await answer.json(), Number.isFinite(ahead) ? ahead : 0);
      this.#heardAt = Date.now();
      this.#failed = false;
    } catch {
      this.#failed = true;
    }
    this.#age();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#turn(), !this.#failed && this.#busy() ? SOON_EVERY_MS : EVERY_MS);
  }

  // Something is going on, or about to.
  #busy() {
    if (this.#times === null) return false;
    const due = this.#times.next - Date.now();
    return this.#times.running || (due < SOON_MS && due > -LONG_DUE_MS);
  }

  #age() {
    if (this.#times !== null) setText(find("#cluster-refresh"), refreshes(this.#times));
    const silence = this.#heardAt === null ? null : Date.now() - this.#heardAt;
    const stale = silence === null || this.#failed || silence > 3 * EVERY_MS;
    this.#panel.classList.toggle("stale", stale);
    const words = silence === null ? (this.#failed ? "The service does not answer" : "Asking the service") : `No answer: as of ${Math.round(silence / 1000)} s ago`;
    setText(find("#cluster-age"), stale ? words : "Live");
  }

  #show(cluster, ahead) {
    const key = cluster.keys.find((each) => each.key_id === this.#chosen()) ?? cluster.keys[0];
    if (key === undefined) return;
    if (key.epoch > 0) this.#exists();
    const known = this.#keys.get(key.key_id);
    // The committee may have changed since the page was made.
    if (known !== undefined) known.seats = cluster.replicas.map((each) => each.index);
    const threshold = key.threshold ?? known?.threshold ?? null;
    this.#quorum(key, threshold, cluster.replicas.length);
    setText(find("#cluster-key"), key.key_id);
    this.#times = {
      last: Date.parse(key.last_refresh ?? "") - ahead,
      next: Date.parse(key.next_refresh ?? "") - ahead,
      running: key.ceremony !== null,
    };
    this.#epoch(key);
    setText(find("#cluster-ceremony"), ceremony(key.ceremony, cluster.replicas.length));
    const pods = cluster.apis.length;
    setText(find("#cluster-pods"), `${pods} ${pods === 1 ? "pod" : "pods"}`);
    this.#replicas(cluster.replicas, key.key_id);
  }

  #epoch(key) {
    const field = find("#cluster-epoch");
    setText(field, key.epoch === 0 ? "none yet" : String(key.epoch));
    const before = this.#shown;
    this.#shown = { key: key.key_id, epoch: key.epoch };
    if (before === null || before.key !== key.key_id || before.epoch === key.epoch) return;
    field.classList.remove("fresh");
    void field.offsetWidth; // or the animation would not begin anew
    field.classList.add("fresh");
    if (before.epoch > 0) announce(`New shares: epoch ${key.epoch}`);
  }

  #quorum(key, threshold, size) {
    const margin = key.quorum_margin;
    const state = margin > 0 ? "good" : margin === 0 ? "tight" : "lost";
    this.#panel.dataset.quorum = state;
    const headline = {
      good: `Quorum with ${margin} to spare`,
      tight: "Quorum with none to spare",
      lost: key.epoch === 0 ? "No key yet" : "Quorum lost",
    }[state];
    setText(find("#quorum-headline"), headline);
    if (threshold !== null) {
      const holders = margin + threshold;
      setText(find("#quorum-detail"), `${holders} of ${size} replicas are up with a share; ${threshold} make a signature.`);
      this.#meter(holders, threshold, size);
    }
    if (this.#said !== "" && this.#said !== headline) announce(headline);
    this.#said = headline;
  }

  #meter(holders, threshold, size) {
    const meter = find("#quorum-meter");
    while (meter.childElementCount < size) meter.append(element("span"));
    while (meter.childElementCount > size) meter.lastElementChild.remove();
    [...meter.children].forEach((pip, index) => {
      pip.className = `pip${index < holders ? " up" : ""}${index === threshold - 1 && size > threshold ? " threshold" : ""}`;
    });
  }

  #replicas(replicas, keyId) {
    const list = find("#replicas");
    while (list.childElementCount > replicas.length) list.lastElementChild.remove();
    while (list.childElementCount < replicas.length) list.append(stamp("replica").root);
    replicas.forEach((replica, place) => {
      const row = list.children[place];
      const part = (name) => find(`[data-part=${name}]`, row);
      row.dataset.state = replica.state;
      setText(part("name"), `Replica ${replica.index}`);
      setText(part("state"), replica.state);
      setText(part("detail"), detailOf(replica, keyId));
    });
  }
}

function refreshes({ last, next }) {
  const now = Date.now();
  const said = [];
  if (Number.isFinite(last)) said.push(`${distance(now - last)} ago`);
  if (Number.isFinite(next)) said.push(next > now ? `next in ${distance(next - now)}` : "next is due");
  return said.join(", ") || "unknown";
}

function distance(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} d`;
}

function detailOf(replica, keyId) {
  if (replica.last_seen_ms === null) return "not heard yet";
  const epoch = replica.epochs[keyId];
  const parts = [epoch ? `epoch ${epoch}` : "no share", `${replica.in_flight} in flight`];
  if (replica.state === "silent") parts.push(`silent for ${Math.round(replica.last_seen_ms / 1000)} s`);
  if (Math.abs(replica.skew_ms ?? 0) >= SKEW_SHOWN_MS) {
    parts.push(`clock ${Math.abs(replica.skew_ms / 1000).toFixed(1)} s ${replica.skew_ms > 0 ? "ahead" : "behind"}`);
  }
  return parts.join(" · ");
}

// What goes without saying is left out: in a ceremony where all is well each phase is there for a moment only.
function ceremony(running, size) {
  if (running === null) return "none running";
  const kind = KINDS[running.kind] ?? running.kind;
  const phase = PHASES[running.phase] ?? running.phase;
  const some = running.awaited.length > 0 && running.awaited.length < size;
  const awaited = some ? `, waits for replica ${running.awaited.join(", ")}` : "";
  const attempt = running.attempt > 1 ? `, attempt ${running.attempt}` : "";
  return `${kind}: ${phase}${attempt}${awaited}`;
}
