// Questions to the server. Every failure has a message that can be shown.

export class Refused extends Error {
  constructor(status, message, wait) { super(message); this.status = status; this.wait = wait; }
}

export async function ask(path, method = "GET", body) {
  const options = { method, credentials: "same-origin" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "content-type": "application/json" };
  }
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Refused(answer.status, await reason(answer));
  return answer.status === 204 ? null : answer.json();
}

async function reason(answer) {
  try {
    const said = (await answer.json()).detail;
    return typeof said === "string" ? said : "the server does not understand the page; load it again";
  } catch { return `the server answered ${answer.status}`; }
}

// XMLHttpRequest, since fetch does not tell how much of a body has been sent.
export function send(row, file, onPart) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/rows/${row}/file`);
    request.upload.onprogress = (event) => event.lengthComputable && onPart(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) return resolve();
      let said = `the server answered ${request.status}`;
      try { said = JSON.parse(request.responseText).detail; } catch { /* no JSON: the number says it */ }
      reject(new Refused(request.status, said, Number(request.getResponseHeader("retry-after")) || 0));
    };
    request.onerror = () => reject(new TypeError("the connection broke"));
    request.send(file);
  });
}
