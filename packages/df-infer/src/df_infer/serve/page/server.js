// Talking to the server: addresses, the token, and one line of what went wrong.

let token = "";

export function useToken(text) { token = text.trim(); }

const headers = (more = {}) => (token ? { ...more, Authorization: `Bearer ${token}` } : more);

export class Refused extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

async function read(response) {
  if (response.ok) return response;
  let line = `the server answered ${response.status}`;
  try { line = (await response.json()).error ?? line; } catch { /* no JSON, no line */ }
  throw new Refused(line, response.status);
}

export async function getJson(path) {
  return (await read(await fetch(path, { headers: headers() }))).json();
}

export async function getBlob(path) {
  return (await read(await fetch(path, { headers: headers() }))).blob();
}

export async function postJson(path, value) {
  const options = { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(value) };
  return (await read(await fetch(path, options))).json();
}

export async function postFile(path, file) {
  return (await read(await fetch(path, { method: "POST", headers: headers(), body: file }))).json();
}

export function openSocket(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const bytes = new TextEncoder().encode(token);
  const coded = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return new WebSocket(url, token ? ["dualforce.v1", `token.${coded}`] : ["dualforce.v1"]);
}
