// Somebody in front of a real browser (headless Chromium), for the end-to-end tests.
//
//   node person.mjs '{"does": "sign in", "name": "alice", "folder": "/tmp/..."}' URL
//
// Opens URL, which is where a login begins at the certified provider of tests/oidc-provider, and does one of:
//   sign in   gives a name and a password, and agrees to everything
//   cancel    goes back at the first page that offers it
// Ends on the page of `epithet auth oidc`, takes a picture of it in light and in dark, and writes `page.json` into the
// folder: the address, the title, the text, what the page loaded, and what the browser complained about.
// With "leaves": true it does not follow the way back to this machine, as a browser elsewhere could not: it writes the
// address to which it was sent.

import { once } from 'node:events';
import { existsSync, renameSync, writeFileSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const settings = { does: 'sign in', name: 'alice', leaves: false, ...JSON.parse(process.argv[2]) };
const url = process.argv[3];

const program = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

// Written whole or not at all: the test waits for the file.
function report(content) {
  const file = join(settings.folder, 'page.json');
  writeFileSync(`${file}.new`, JSON.stringify(content));
  renameSync(`${file}.new`, file);
}

async function signIn(page) {
  for (let step = 0; step < 10; step += 1) {
    const login = page.locator('input[name=login]');
    const button = page.locator('button[type=submit]').first();
    if (await login.count()) {
      await login.fill(settings.name);
      await page.locator('input[name=password]').fill('any password');
    } else if (!(await button.count())) {
      return;
    }
    await Promise.all([page.waitForEvent('load'), button.click()]);
  }
  throw new Error('the provider asks and asks');
}

async function cancel(page) {
  await Promise.all([page.waitForEvent('load'), page.getByRole('link', { name: /cancel/i }).click()]);
}

// A browser elsewhere: what it asks for goes through a proxy from which only the provider can be reached. (Playwright's
// own `route` does not see where a redirect leads.)
let left;
async function elsewhere() {
  const proxy = createServer((request, response) => {
    if (!request.url.startsWith(new URL(url).origin)) {
      if (request.url.includes('state=')) left = request.url;
      response.writeHead(502).end();
      return;
    }
    const { method, headers } = request;
    const forwarded = httpRequest(request.url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(forwarded);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  proxy.unref();
  return { server: `http://127.0.0.1:${proxy.address().port}`, bypass: '<-loopback>' };
}

let browser;
try {
  if (!program) throw new Error('chromium is not installed: apt-get install chromium');
  browser = await chromium.launch({
    executablePath: program,
    proxy: settings.leaves ? await elsewhere() : undefined,
    // In a test machine's container there is neither a user nor a name space for the sandbox, nor much of /dev/shm.
    args: process.getuid() === 0 ? ['--no-sandbox', '--disable-dev-shm-usage'] : [],
  });
  const page = await browser.newPage({ viewport: { width: 900, height: 600 }, colorScheme: 'light' });
  const complaints = [];
  const requests = [];
  page.on('console', (message) => {
    const { url: from } = message.location();
    if (['error', 'warning'].includes(message.type())) complaints.push({ text: message.text(), from });
  });
  page.on('pageerror', (error) => complaints.push({ text: String(error), from: page.url() }));
  page.on('request', (request) => requests.push(request.url()));
  // The provider's own pages ask for a font from elsewhere; tests ask nobody elsewhere.
  await page.route((address) => address.hostname !== '127.0.0.1', (route) => route.abort());
  await page.goto(url);
  await (settings.does === 'cancel' ? cancel(page) : signIn(page));
  if (settings.leaves) {
    report({ url: left });
  } else {
    const origin = new URL(page.url()).origin;
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(settings.folder, `page-${colorScheme}.png`) });
    }
    report({
      url: page.url(),
      title: await page.title(),
      text: await page.locator('body').innerText(),
      background: await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      loaded: requests.filter((request) => request.startsWith(origin)),
      complaints: complaints.filter(({ from }) => from.startsWith(origin) && !from.endsWith('/favicon.ico')),
    });
  }
} catch (error) {
  report({ error: String(error) });
} finally {
  await browser?.close();
}
