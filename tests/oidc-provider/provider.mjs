// A certified OpenID Provider (npm oidc-provider) for the end-to-end tests: on loopback only, ends with its parent.
//
//   node provider.mjs ['{"port": 0, ...}']
//
// Settings are one JSON object, each with a default below. When it answers requests it prints one line,
// `ready: issuer http://127.0.0.1:PORT`. After that it prints one line per event: `event: NAME DETAIL`.
//
// Lines on stdin are commands, each answered by `done: COMMAND`:
//   down      answer every request with 503
//   up        answer again
//   revoke    forget every login, token and code
//   rotate    sign with a new key; the old ones stay published
//   retire    publish nothing but the newest key
//   clock N   put the provider's clock N seconds ahead
// The end of stdin ends the process, so that no test leaves one behind.

import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// The clock is moved before the provider is loaded, so that no part of it keeps the true one.
let clockOffset = 0;
const trueNow = Date.now;
const TrueDate = Date;
globalThis.Date = class extends TrueDate {
  constructor(...args) {
    if (args.length === 0) super(trueNow() + clockOffset);
    else super(...args);
  }

  static now() {
    return trueNow() + clockOffset;
  }
};

const { default: Provider, errors } = await import('oidc-provider');

const settings = {
  port: 0,
  clientId: 'epithet',
  clientSecret: null,
  clientKey: null, // the file of a public key (PEM), for private_key_jwt
  clientKeyId: 'client-key', // and what it is called
  algorithm: 'RS256', // RS256, PS256, ES256 or EdDSA: how ID tokens are signed
  idTokenLife: 600, // seconds, as all lives
  accessTokenLife: 600,
  refreshTokenLife: 8 * 3600,
  deviceCodeLife: 600,
  rotate: true, // whether refresh tokens are for one use
  refreshAlways: true, // false: only with offline_access
  deviceFlow: true,
  redirectPaths: ['/callback', '/'], // where answers may go, on this machine, at any port
  emailDomain: 'example.com',
  groups: ['engineering'],
  quiet: true, // whether oidc-provider's own remarks about development settings are dropped
  ...JSON.parse(process.argv[2] ?? '{}'),
};

if (settings.quiet) {
  console.info = () => {};
  console.warn = () => {};
}

function event(name, detail) {
  process.stdout.write(`event: ${name} ${detail}\n`);
}

function newKey() {
  const kinds = {
    RS256: ['rsa', { modulusLength: 2048 }],
    PS256: ['rsa', { modulusLength: 2048 }],
    ES256: ['ec', { namedCurve: 'P-256' }],
    EdDSA: ['ed25519', {}],
  };
  const [kind, options] = kinds[settings.algorithm];
  const jwk = generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' });
  // `Ed25519` is the newer name of the same algorithm (RFC 9864); the old one is what clients know.
  return { ...jwk, kid: randomBytes(9).toString('base64url'), use: 'sig', alg: settings.algorithm };
}

let keys = [newKey()];

// The storage of oidc-provider, in memory; one map, so that `revoke` can empty it.
const stored = new Map();

class Memory {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    stored.set(this.key(id), payload);
  }

  async find(id) {
    return stored.get(this.key(id));
  }

  async search(field, value) {
    for (const [key, payload] of stored) {
      if (key.startsWith(`${this.model}:`) && payload[field] === value) return payload;
    }
    return undefined;
  }

  findByUid(uid) {
    return this.search('uid', uid);
  }

  findByUserCode(userCode) {
    return this.search('userCode', userCode);
  }

  async destroy(id) {
    stored.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of stored) {
      if (payload.grantId === grantId) stored.delete(key);
    }
  }

  async consume(id) {
    const payload = stored.get(this.key(id));
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }
}

const cookieKeys = [randomBytes(32).toString('base64url')];

function emailOf(name) {
  return name.includes('@') ? name : `${name}@${settings.emailDomain}`;
}

function makeProvider(issuer) {
  const grants = ['authorization_code', 'refresh_token'];
  if (settings.deviceFlow) grants.push('urn:ietf:params:oauth:grant-type:device_code');
  const isPublic = settings.clientSecret === null;
  const clientKey = settings.clientKey && {
    ...createPublicKey(readFileSync(settings.clientKey)).export({ format: 'jwk' }),
    kid: settings.clientKeyId,
    use: 'sig',
  };
  const provider = new Provider(issuer, {
    adapter: Memory,
    jwks: { keys },
    cookies: { keys: cookieKeys },
    clients: [
      {
        client_id: settings.clientId,
        ...(isPublic ? {} : { client_secret: settings.clientSecret }),
        token_endpoint_auth_method: isPublic ? 'none' : 'client_secret_basic',
        ...(clientKey ? { token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [clientKey] } } : {}),
        application_type: 'native',
        // A native client's loopback addresses are good at any port (RFC 8252, section 7.3).
        redirect_uris: ['127.0.0.1', 'localhost', '[::1]'].flatMap((host) =>
          settings.redirectPaths.map((path) => `http://${host}${path}`)),
        response_types: ['code'],
        grant_types: grants,
        id_token_signed_response_alg: settings.algorithm,
      },
    ],
    enabledJWA: { idTokenSigningAlgValues: [settings.algorithm] },
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: settings.deviceFlow },
      revocation: { enabled: true },
      rpInitiatedLogout: { enabled: false },
    },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    // Claims of the scopes are in the ID token itself: there is nobody here who would ask /userinfo.
    conformIdTokenClaims: false,
    findAccount(_ctx, id) {
      if (id === 'nobody') throw new errors.AccessDenied('this account does not exist');
      return {
        accountId: id,
        claims: () => ({
          sub: id,
          name: id,
          preferred_username: id,
          email: emailOf(id),
          email_verified: true,
          groups: settings.groups,
        }),
      };
    },
    ...(settings.refreshAlways
      ? { issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token') }
      : {}),
    rotateRefreshToken: settings.rotate,
    ttl: {
      AccessToken: settings.accessTokenLife,
      AuthorizationCode: 60,
      DeviceCode: settings.deviceCodeLife,
      Grant: settings.refreshTokenLife,
      IdToken: settings.idTokenLife,
      Interaction: 600,
      RefreshToken: settings.refreshTokenLife,
      Session: settings.refreshTokenLife,
    },
  });
  provider.on('grant.success', (ctx) => event('grant', ctx.oidc.params.grant_type));
  provider.on('grant.error', (ctx, error) =>
    event('refusal', `${ctx.oidc.params?.grant_type} ${error.error}: ${error.error_detail ?? error.error_description}`));
  provider.on('authorization.success', () => event('authorization', 'success'));
  provider.on('authorization.error', (_ctx, error) => event('authorization', error.error));
  provider.on('refresh_token.consumed', () => event('refresh_token', 'consumed'));
  provider.on('grant.revoked', () => event('login', 'revoked'));
  provider.on('server_error', (_ctx, error) => event('server_error', String(error).replaceAll('\n', ' ')));
  return provider.callback();
}

let isDown = false;
let answer = () => {};
const server = createServer((request, response) => {
  if (isDown) {
    response.writeHead(503, { 'content-type': 'text/plain' }).end('the provider is down for a test\n');
    return;
  }
  answer(request, response);
});
server.listen(settings.port, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;
answer = makeProvider(issuer);

const commands = {
  down() {
    isDown = true;
  },
  up() {
    isDown = false;
  },
  revoke() {
    stored.clear();
  },
  rotate() {
    keys = [newKey(), ...keys];
    answer = makeProvider(issuer);
  },
  retire() {
    keys = keys.slice(0, 1);
    answer = makeProvider(issuer);
  },
  clock(seconds) {
    clockOffset = Number(seconds) * 1000;
  },
};

process.stdout.write(`ready: issuer ${issuer}\n`);

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...words] = line.trim().split(' ');
  if (name in commands) {
    commands[name](...words);
    process.stdout.write(`done: ${line.trim()}\n`);
  } else {
    process.stdout.write(`unknown command: ${line.trim()}\n`);
  }
}
process.exit(0);
