// The panel: replicas, epoch, quorum margin and ceremony of the chosen key, asked for every two seconds while it is seen.

import { announce, element, find, setText, stamp } from "./dom.js";

const EVERY_MS = 2_000;
const WITHIN_MS = 5_000;

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
      this.#show(await answer.json());
      this.#heardAt = Date.now();
      this.#failed = false;
    } catch {
      this.#failed = true;
    }
    this.#age();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#turn(), EVERY_MS);
  }

  #age() {
    const silence = this.#heardAt === null ? null : Date.now() - this.#heardAt;
    const stale = silence === null || this.#failed || silence > 3 * EVERY_MS;
    this.#panel.classList.toggle("stale", stale);
    const words = silence === null ? (this.#failed ? "The service does not answer" : "Asking the service") : `No answer: as of ${Math.round(silence / 1000)} s ago`;
    setText(find("#cluster-age"), stale ? words : "Live");
  }

  #show(cluster) {
    const key = cluster.keys.find((each) => each.key_id === this.#chosen()) ?? cluster.keys[0];
    if (key === undefined) return;
    if (key.epoch > 0) this.#exists();
    const known = this.#keys.get(key.key_id);
    const threshold = known?.threshold ?? null;
    this.#quorum(key, threshold, cluster.replicas.length);
    setText(find("#cluster-key"), key.key_id);
    setText(find("#cluster-epoch"), key.epoch === 0 ? "none yet" : String(key.epoch));
    setText(find("#cluster-ceremony"), ceremony(key.ceremony));
    const pods = cluster.apis.length;
    setText(find("#cluster-pods"), `${pods} ${pods === 1 ? "pod" : "pods"}`);
    this.#replicas(cluster.replicas, key.key_id);
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

function detailOf(replica, keyId) {
  if (replica.last_seen_ms === null) return "not heard yet";
  const epoch = replica.epochs[keyId];
  const parts = [epoch ? `epoch ${epoch}` : "no share", `${replica.in_flight} in flight`];
  if (replica.state === "silent") parts.push(`silent for ${Math.round(replica.last_seen_ms / 1000)} s`);
  return parts.join(" · ");
}

function ceremony(running) {
  if (running === null) return "none running";
  const kind = KINDS[running.kind] ?? running.kind;
  const phase = PHASES[running.phase] ?? running.phase;
  const awaited = running.awaited.length > 0 ? `, waits for replica ${running.awaited.join(", ")}` : "";
  return `${kind}: ${phase}, attempt ${running.attempt}${awaited}`;
}
