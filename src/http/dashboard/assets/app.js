// What the dashboard does beyond links and forms: theme, times, keys, confirmations, charts that can
// be pointed at, parts that renew themselves, and the live tail. Everything else works without it.
"use strict";

(() => {
  const root = document.documentElement;
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Theme: before anything is drawn, so that nothing flashes.
  const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } };
  const theme = stored("tollgate-theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.classList.add("js");

  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const toggleTheme = () => {
    root.dataset.theme = dark() ? "light" : "dark";
    keep("tollgate-theme", root.dataset.theme);
  };

  // Times: "5 s ago" grows while the page is open.
  const span = (s) => s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const ago = (time, due) => {
    const s = Math.round((Date.now() - Date.parse(time)) / 1000);
    if (Number.isNaN(s)) return "";
    if (due && s >= 0) return "due";
    return s >= 60 * 86400 ? time.slice(0, 10) : Math.abs(s) < 2 ? "now" : s > 0 ? `${span(s)} ago` : `in ${span(-s)}`;
  };
  const renewTimes = (within = document) => {
    for (const time of $$("time[data-ago]", within)) {
      const text = ago(time.dateTime, "due" in time.dataset);
      if (text && time.textContent !== text) time.textContent = text;
    }
  };

  // Confirmations: a form with data-confirm asks first.
  const ask = (form, button) => {
    const dialog = $("#confirm");
    $("h2", dialog).textContent = form.dataset.confirm;
    $("p", dialog).textContent = form.dataset.explain || "";
    const yes = $("button[value=yes]", dialog);
    yes.textContent = (button || $("button", form)).textContent.trim();
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue !== "yes") return;
      form.dataset.confirmed = "yes";
      form.requestSubmit(button || undefined);
    };
    dialog.showModal();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.confirm && form.dataset.confirmed !== "yes") {
      event.preventDefault();
      ask(form, event.submitter);
      return;
    }
    // Once is enough; but not before the browser has read the form.
    if (form.method === "post") setTimeout(() => { for (const button of $$("button", form)) button.disabled = true; });
    else for (const input of $$("input, select", form)) if (!input.value) input.disabled = true;
  });
  addEventListener("pageshow", () => { for (const button of $$("form button:disabled, form input:disabled, form select:disabled")) button.disabled = false; });

  // Charts: the values of what is pointed at, beside the pointer.
  const point = (event) => {
    const hit = event.target.closest?.(".hit");
    const plot = hit?.closest(".plot");
    for (const tip of $$(".tip")) if (tip.parentElement !== plot) tip.remove();
    if (!plot) return;
    const tip = $(".tip", plot) || plot.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
    const title = $("title", hit);
    if (title) { hit.dataset.title = title.textContent; title.remove(); }
    tip.textContent = hit.dataset.title;
    const box = plot.getBoundingClientRect();
    const at = hit.getBoundingClientRect();
    const left = at.right - box.left + 6;
    tip.style.left = `${left + tip.offsetWidth > box.width ? Math.max(0, at.left - box.left - tip.offsetWidth - 6) : left}px`;
  };

  // Parts that renew themselves, every [data-renew] seconds, while somebody looks and does nothing with them.
  const busy = (part) => part.contains(document.activeElement) && document.activeElement !== part
    || $("dialog[open]") || $("details[open]", part) || $(".tip", part);
  const renew = async (parts) => {
    if (document.hidden || parts.every(busy)) return;
    try {
      const answer = await fetch(location.href, { headers: { "x-part": "1" }, redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const fresh = page.getElementById(part.id);
        if (!fresh || busy(part)) continue;
        part.replaceChildren(...fresh.childNodes);
        renewTimes(part);
      }
    } catch { /* the gateway is away: the next try comes by itself */ }
  };

  // Keys.
  const places = { o: "/", e: "/events", l: "/live", c: "/consumers", d: "/dead-letters", b: "/billing", h: "/handlers", q: "/quarantine", f: "/failures", a: "/audit", t: "/tokens" };
  let going = 0;
  const rows = () => $$("tbody tr[data-href], li[data-href]");
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const now = all.findIndex((row) => row.classList.contains("cursor"));
    const next = Math.min(all.length - 1, Math.max(0, now < 0 ? (by > 0 ? 0 : all.length - 1) : now + by));
    all[now]?.classList.remove("cursor");
    all[next].classList.add("cursor");
    all[next].scrollIntoView({ block: "nearest" });
    $("a", all[next])?.focus({ preventScroll: true });
  };
  const key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    // In a dialog that has just closed the focus stays for a moment.
    const typing = event.target.closest?.("input, select, textarea, dialog[open]");
    if (typing) {
      if (event.key === "Escape" && !event.target.closest("dialog")) event.target.blur();
      return;
    }
    if (going && Date.now() - going < 1500 && places[event.key]) { location.href = places[event.key]; event.preventDefault(); return; }
    going = 0;
    const keys = {
      "/": () => $("#find")?.focus(), "?": () => $("#keys")?.showModal(),
      j: () => step(1), k: () => step(-1), g: () => { going = Date.now(); },
      n: () => $("a[rel=next]")?.click(), p: () => $("a[rel=prev]")?.click(), t: toggleTheme,
    };
    if (event.key === "Enter" && event.target === document.body) { const row = $("tr.cursor"); if (row) location.href = row.dataset.href; return; }
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  };

  // The live tail. Reconnects by itself with Last-Event-ID, so that nothing is missed.
  const MOST_ROWS = 500;
  const live = (table) => {
    const body = $("tbody", table), state = $("#live-state"), pause = $("#live-pause"), empty = $("#live-empty");
    const waiting = [];
    let source = null, paused = false, last = table.dataset.after, retry = 0;
    const say = (text, kind) => { state.textContent = text; state.className = `live-state ${kind}`; };
    const show = (event) => {
      const row = $("#live-row").content.firstElementChild.cloneNode(true);
      const dot = event.type.lastIndexOf(".") + 1;
      const put = (name, text) => { const part = $(`[data-put=${name}]`, row); if (part) part.textContent = text || ""; return part; };
      put("time", event.time).dateTime = event.received_at;
      put("family", event.type.slice(0, dot));
      put("act", event.type.slice(dot));
      put("id", event.id);
      put("object", event.object);
      put("account", event.account);
      put("mode", event.livemode ? "live" : "test").className = `tag ${event.livemode ? "ok" : "warn"}`;
      $("a", row).href = row.dataset.href = event.href;
      row.classList.add("fresh");
      body.prepend(row);
      if (empty) empty.hidden = true;
      while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
    };
    const connect = () => {
      clearTimeout(retry);
      const url = new URL(table.dataset.stream, location.href);
      if (last) url.searchParams.set("after", last);
      source = new EventSource(url);
      source.onopen = () => paused ? say(`paused, ${waiting.length} waiting`, "") : say("live", "on");
      source.onmessage = (message) => {
        last = message.lastEventId || last;
        const event = JSON.parse(message.data);
        if (paused) { waiting.push(event); if (waiting.length > MOST_ROWS) waiting.shift(); say(`paused, ${waiting.length} waiting`, ""); } else show(event);
      };
      source.addEventListener("end", () => { source.close(); location.reload(); });
      source.onerror = () => {
        say("connecting again …", "off");
        // Refused, and given up by the browser: too many streams, or a session that has ended.
        if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, 4000);
      };
    };
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Resume" : "Pause";
      pause.setAttribute("aria-pressed", String(paused));
      if (!paused) { waiting.splice(0).forEach(show); say("live", "on"); } else say("paused", "");
    });
    addEventListener("pagehide", () => source?.close());
    addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
    pause.hidden = false;
    connect();
  };

  document.addEventListener("DOMContentLoaded", () => {
    renewTimes();
    setInterval(renewTimes, 1000);
    for (const button of $$("[data-theme-toggle]")) { button.hidden = false; button.addEventListener("click", toggleTheme); }
    for (const button of $$("[data-help]")) { button.hidden = false; button.addEventListener("click", () => $("#keys").showModal()); }
    for (const button of $$("[data-copy]")) {
      button.hidden = !navigator.clipboard;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.dataset.copy);
        const text = button.textContent;
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = text; }, 1200);
      });
    }
    for (const box of $$("select[data-submit]")) box.addEventListener("change", () => box.form.requestSubmit());
    const parts = $$("[data-renew]");
    if (parts.length) setInterval(() => renew(parts), 1000 * Math.min(...parts.map((part) => Number(part.dataset.renew))));
    document.addEventListener("keydown", key);
    document.addEventListener("pointerover", point);
    // A row is a link as a whole, but for what is a link or a button itself, and for selecting text.
    document.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-href]");
      if (!row || event.target.closest("a, button, input, form, label") || String(getSelection())) return;
      if (event.metaKey || event.ctrlKey) open(row.dataset.href, "_blank", "noopener"); else location.href = row.dataset.href;
    });
    const table = $("[data-stream]");
    if (table && window.EventSource) live(table);
  });
})();
