// Uses a cluster as programs do that use rqlite's client for JavaScript. It is given the addresses of all nodes.
// Standard output and input are the conversation with the test that has started it, as in ../gorqlite/main.go.

const assert = require('node:assert')
const readline = require('node:readline')
const { setTimeout: sleep } = require('node:timers/promises')
const axios = require('axios')
const { DataApiClient, StatusApiClient } = require('rqlite-js')

let telling = true

axios.interceptors.request.use((config) => {
  if (telling) {
    const url = axios.getUri(config).replace('http://', '')
    const body = config.data === undefined ? '' : JSON.stringify(config.data)
    console.log(`request ${config.method.toUpperCase()} ${url} ${body}`)
  }
  return config
})

async function one (client, sql, options) {
  const results = await client.query(sql, options)
  assert.ok(!results.hasError(), `${sql}: ${results.getFirstError()}`)
  return results.get(0).toArray()[0]
}

// steady uses all that the client offers while nothing happens to the nodes.
async function steady (client, hosts) {
  const status = await new StatusApiClient(hosts).status()
  for (const key of ['build', 'http', 'node', 'runtime', 'store']) {
    assert.ok(status.body[key], `/status has no ${key}`)
  }
  assert.strictEqual(status.body.store.ready, true)

  let results = await client.execute([
    'CREATE TABLE kinds (id INTEGER NOT NULL PRIMARY KEY, i INTEGER, r REAL, t TEXT, yes BOOLEAN, b BLOB, at DATETIME, missing TEXT)',
    'CREATE TABLE acked (id INTEGER NOT NULL PRIMARY KEY)'
  ])
  assert.ok(!results.hasError())

  // Values of each type. An array is a BLOB.
  const values = [9007199254740991, 2.5, 'it\'s "ÅSA" <&>', true, [0, 1, 255], '2024-02-29T12:30:45Z', null]
  results = await client.execute([['INSERT INTO kinds(i, r, t, yes, b, at, missing) VALUES (?, ?, ?, ?, ?, ?, ?)', ...values]])
  assert.strictEqual(results.get(0).getLastInsertId(), 1)
  assert.strictEqual(results.get(0).getRowsAffected(), 1)
  results = await client.query('SELECT i, r, t, yes, b, at, missing FROM kinds', { timings: true, pretty: true })
  assert.deepStrictEqual(results.toArray(), [{
    i: 9007199254740991, r: 2.5, t: 'it\'s "ÅSA" <&>', yes: true, b: 'AAH/', at: '2024-02-29T12:30:45Z', missing: null
  }])
  results = await client.query([['SELECT t FROM kinds WHERE id = :id', { id: 1 }], 'SELECT id FROM kinds WHERE id = 99'])
  assert.strictEqual(results.get(0).get('t'), 'it\'s "ÅSA" <&>')

  // Errors of statements.
  results = await client.execute('INSERT INTO nowhere VALUES (1)')
  assert.strictEqual(results.getFirstError().message, 'no such table: nowhere')

  // Transactions.
  results = await client.execute(['INSERT INTO acked VALUES (1)', 'INSERT INTO acked VALUES (1)'], { transaction: true })
  assert.strictEqual(results.getFirstError().message, 'UNIQUE constraint failed: acked.id')
  results = await client.execute(['INSERT INTO acked VALUES (2)', 'INSERT INTO acked VALUES (3)'], { transaction: true, timings: true })
  assert.ok(!results.hasError() && results.getTime() > 0)

  for (const level of ['none', 'weak', 'linearizable', 'strong']) {
    const deadline = Date.now() + 10000
    while (await one(client, 'SELECT count(*) AS n FROM acked', { level }) !== 2) {
      assert.ok(level === 'none' && Date.now() < deadline, `level ${level} does not see what was written`)
      await sleep(20)
    }
  }
}

// failover writes rows before, while and after the leader is killed, each with a key of its own.
async function failover (client) {
  let killed = false
  const input = readline.createInterface({ input: process.stdin })
  input.on('line', (line) => { killed = line === 'killed' })
  input.on('close', () => { if (!killed) process.exit(1) })
  let before = 0
  let after = 0
  const deadline = Date.now() + 90000
  for (let key = 1000; after < 200; key++) {
    assert.ok(Date.now() < deadline, `only ${after} rows after the leader was killed`)
    const since = killed
    try {
      const results = await client.execute([['INSERT INTO acked VALUES (?)', key]])
      const result = results.get(0) // undefined if the request as a whole has failed, which the client does not look at
      if (!result || results.hasError() || result.getRowsAffected() !== 1) {
        continue
      }
    } catch (e) {
      await sleep(20)
      continue // it may be there or not
    }
    console.log(`acknowledged ${key}`)
    if (++before === 100) {
      console.log('kill')
    }
    if (since) {
      after++
    }
  }
  input.removeAllListeners('close')
  input.close()
}

async function main () {
  const hosts = process.argv.slice(2).map((addr) => `http://${addr}`)
  const client = new DataApiClient(hosts)
  await steady(client, hosts)
  telling = false
  await failover(client)
}

main().then(() => process.exit(0), (e) => {
  console.error('rqlite-js:', e)
  process.exit(1)
})
