#!/usr/bin/env node
// A plugin in JavaScript, without packages: a refresh token in the state.
//   --auth 'AUTH_URL=https://auth.example.com/token CLIENT_ID=ssh examples/plugins/node.mjs'
import { readFileSync, writeSync } from 'node:fs'

const text = readFileSync(0)
const state = text.length > 0 ? JSON.parse(text) : {}

async function ask(form) {
  const body = new URLSearchParams({ ...form, client_id: process.env.CLIENT_ID })
  const reply = await fetch(process.env.AUTH_URL, { method: 'POST', body, signal: AbortSignal.timeout(30_000) })
  if (!reply.ok) throw new Error(`the token endpoint answered ${reply.status}`)
  return reply.json()
}

try {
  const reply = state.refresh_token
    ? await ask({ grant_type: 'refresh_token', refresh_token: state.refresh_token })
    : await ask({ grant_type: 'client_credentials' })
  writeSync(1, reply.access_token)
  writeSync(3, JSON.stringify({ refresh_token: reply.refresh_token ?? state.refresh_token }))
} catch (error) {
  console.error(error.message)
  process.exit(1)
}
