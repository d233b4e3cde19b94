"""The page on which people approve a terminal: sign in, type the code, see who asks, say yes or no.

One document without anything from elsewhere; its policy lets exactly this script and this style run and lets them ask
this hub only. What a terminal said of itself becomes text, never markup. Runs in the hub, and in browsers.
"""

import base64
import hashlib
from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE"]

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
label{display:block;margin:.75rem 0 .25rem}input{font:inherit;padding:.4rem;width:100%;box-sizing:border-box}
button{font:inherit;padding:.4rem 1rem;margin:1rem .5rem 0 0}dt{color:#57606a}dd{margin:0 0 .5rem}
[role=alert]{color:#a40e26}[hidden]{display:none}
"""

_SCRIPT: Final = """
"use strict";
const at = (id) => document.getElementById(id);
const kept = "guardhouse-device-code";

const show = (section) => {
  for (const one of document.querySelectorAll("section")) one.hidden = one.id !== section;
};

const say = (text) => { at("message").textContent = text; };

async function ask(method, path, body) {
  const reply = await fetch("api/v1/" + path, {
    method,
    credentials: "same-origin",
    headers: body === undefined ? {} : {"content-type": "application/json"},
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await reply.text();
  let answer = {};
  try { answer = text ? JSON.parse(text) : {}; } catch { answer = {}; }
  if (!reply.ok) {
    const error = answer.error || {message: "the hub answered with status " + reply.status, hint: ""};
    throw Object.assign(new Error(error.message + (error.hint ? "; " + error.hint : "")), {status: reply.status});
  }
  return answer;
}

async function begin() {
  try {
    const self = await ask("GET", "self");
    at("who").textContent = (self.email || self.name) + " (" + self.role + ")";
    at("code").value = sessionStorage.getItem(kept) || "";
    show("enter");
  } catch (error) {
    if (error.status !== 401) { say(error.message); return; }
    const methods = await ask("GET", "sign-in/methods");
    at("provider").hidden = !methods.oidc_issuer;
    show("sign-in");
  }
}

const path = () => "device-sign-ins/" + encodeURIComponent(at("code").value.trim());

const attempt = (work) => (event) => {
  event.preventDefault();
  say("");
  work().catch((error) => say(error.message));
};

at("sign-in-form").addEventListener("submit", attempt(async () => {
  await ask("POST", "sign-in", {email: at("email").value, password: at("password").value});
  at("password").value = "";
  await begin();
}));

at("enter-form").addEventListener("submit", attempt(async () => {
  sessionStorage.setItem(kept, at("code").value.trim());
  const found = await ask("GET", path());
  at("name").textContent = found.name;
  at("address").textContent = found.address || "unknown";
  at("asked").textContent = found.asked_at;
  at("scopes").textContent = found.scopes ? found.scopes.join(", ") : "all that you may do";
  at("life").textContent = (found.token_life_s / 86400).toFixed(1) + " days";
  show("confirm");
}));

const answer = (word, done) => attempt(async () => {
  await ask("POST", path() + "/" + word);
  sessionStorage.removeItem(kept);
  at("outcome").textContent = done;
  show("done");
});
at("approve").addEventListener("click", answer("approve", "Approved. Go back to the terminal."));
at("deny").addEventListener("click", answer("deny", "Refused. The terminal gets nothing."));

for (const button of document.querySelectorAll(".sign-out")) {
  button.addEventListener("click", attempt(async () => {
    const left = await ask("POST", "sign-out");
    if (left.end_session_url) { location.assign(left.end_session_url); return; }
    await begin();
  }));
}
begin().catch((error) => say(error.message));
"""

_BODY: Final = """
<main>
<h1>Sign a terminal in</h1>
<p role="alert" id="message"></p>
<noscript><p>This page needs JavaScript. Without a browser: <code>guardhouse login --password</code>.</p></noscript>
<section id="sign-in" hidden>
<p id="provider" hidden><a href="api/v1/sign-in/oidc?to=device">Sign in with your organization</a></p>
<form id="sign-in-form">
<label for="email">Email</label><input id="email" type="email" autocomplete="username" required>
<label for="password">Password</label>
<input id="password" type="password" autocomplete="current-password" required>
<button>Sign in</button>
</form>
</section>
<section id="enter" hidden>
<p>Signed in as <strong id="who"></strong>.</p>
<form id="enter-form">
<label for="code">The code that <code>guardhouse login</code> shows in your terminal</label>
<input id="code" autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="16" required>
<button>Continue</button><button type="button" class="sign-out">Sign out</button>
</form>
</section>
<section id="confirm" hidden>
<p>Approve only what <strong>you</strong> started yourself, just now. Whoever sent you this code gets your rights.</p>
<dl>
<dt>Name</dt><dd id="name"></dd>
<dt>Asks from</dt><dd id="address"></dd>
<dt>Since</dt><dd id="asked"></dd>
<dt>May do</dt><dd id="scopes"></dd>
<dt>Works for</dt><dd id="life"></dd>
</dl>
<button type="button" id="approve">Approve</button><button type="button" id="deny">Refuse</button>
</section>
<section id="done" hidden>
<p id="outcome"></p>
<button type="button" class="sign-out">Sign out of this browser</button>
</section>
</main>
"""

PAGE: Final = (
    '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Sign a terminal in: Guardhouse hub</title>'
    f"<style>{_STYLE}</style></head>\n<body>{_BODY}<script>{_SCRIPT}</script></body>\n</html>\n"
).encode()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; script-src {_source(_SCRIPT)}; style-src {_source(_STYLE)}; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
