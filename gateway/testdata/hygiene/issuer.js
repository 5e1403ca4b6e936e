// An issuer that notes each request that it parsed as a line of JSON on its standard output, and answers it.
'use strict'
const http = require('node:http')
const server = http.createServer((request, response) => {
  const parts = []
  request.on('data', (part) => parts.push(part))
  request.on('end', () => {
    const body = Buffer.concat(parts).toString('latin1')
    process.stdout.write(JSON.stringify({ method: request.method, target: request.url, header: request.rawHeaders, body }) + '\n', () => {
      response.writeHead(200, { 'Content-Type': 'application/json' })
      response.end('{}')
    })
  })
})
server.on('clientError', (error, socket) => {
  if (String(error.code).startsWith('HPE_')) process.stdout.write(JSON.stringify({ malformed: String(error.code) }) + '\n')
  socket.destroy()
})
server.listen(0, '127.0.0.1', () => process.stdout.write(JSON.stringify({ port: server.address().port }) + '\n'))
