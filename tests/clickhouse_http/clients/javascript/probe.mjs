// What an application does with the client, each result under the name that the tests know it by.
import { createClient } from '@clickhouse/client'

const [url, token] = process.argv.slice(2)
const found = {}
const client = createClient({ url, database: 'default', compression: { response: true }, session_id: 'probe' })
const plain = createClient({ url, username: 'anybody', password: token ?? '', database: 'spanwise' })

async function attempt(name, work) {
  try {
    found[name] = await work()
  } catch (error) {
    found[name] = { error: error.constructor.name, code: error.code, type: error.type, message: error.message }
  }
}

const rows = async (query, options = {}) =>
  (await client.query({ query, format: 'JSONEachRow', ...options })).json()

await attempt('ping', async () => (await client.ping()).success)
await attempt('rows', () => rows('SELECT span_id, name FROM spans FINAL ORDER BY span_id'))
await attempt('json', async () => {
  const result = await client.query({ query: 'SELECT count() AS n FROM spans FINAL', format: 'JSON' })
  const { meta, data, rows } = await result.json()
  return { meta, data, rows }
})
await attempt('parameters', () =>
  rows('SELECT {s:String} AS s, {a:Array(String)} AS a, {n:Nullable(Int8)} AS n, {b:Bool} AS b, {m:Map(String, UInt8)} AS m', {
    query_params: { s: "q'\\\t\n", a: ["x'\\", 'y'], n: null, b: true, m: { k: 1 } },
  }),
)
await attempt('settings', () =>
  rows("SELECT getSetting('max_execution_time') AS s", { clickhouse_settings: { max_execution_time: 7 } }),
)
await attempt('stream', async () => {
  const result = await client.query({ query: 'SELECT number FROM numbers(300000)', format: 'JSONCompactEachRow' })
  let count = 0
  for await (const batch of result.stream()) count += batch.length
  return count
})
await attempt('query_id', async () => {
  const result = await client.query({ query: 'SELECT 1', format: 'CSV', query_id: 'from-javascript' })
  await result.text()
  return { id: result.query_id, format: result.response_headers['x-clickhouse-format'] }
})
await attempt('syntax', () => rows('SELEC 1'))
await attempt('insert', () => client.insert({ table: 'spans', values: [{ tenant: 'x' }], format: 'JSONEachRow' }))
await attempt('command', () => client.command({ query: 'DROP TABLE spans' }))
await attempt('abort', async () => {
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 300)
  await rows('SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))', {
    abort_signal: controller.signal,
    query_id: 'aborted-by-javascript',
  })
})
await attempt('plain', async () => (await plain.query({ query: 'SELECT 1', format: 'TabSeparated' })).text())

await client.close()
await plain.close()
console.log(JSON.stringify(found))
