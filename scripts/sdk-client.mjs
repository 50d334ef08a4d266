// A client on an official TypeScript SDK, from a pasted URL to the result of a tool call.
//
//   node sdk-client.mjs PACKAGE ERA URL TOOL [DOCUMENT]
//
// PACKAGE is @modelcontextprotocol/sdk or @modelcontextprotocol/client, ERA is legacy or auto
// (of the second one only), DOCUMENT the URL of a client ID metadata document to be known by.
// BROWSER names the program that opens the sign-in.  Discovery, registration, PKCE and tokens
// are the SDK's own doing; the result is printed as JSON.

import { spawn } from 'node:child_process';
import { createServer } from 'node:http';

const [packageName, era, url, tool, document] = process.argv.slice(2);
const { Client, StreamableHTTPClientTransport, UnauthorizedError } =
  packageName === '@modelcontextprotocol/sdk'
    ? {
        ...(await import('@modelcontextprotocol/sdk/client/index.js')),
        ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')),
        ...(await import('@modelcontextprotocol/sdk/client/auth.js')),
      }
    : await import('@modelcontextprotocol/client');

// Where the browser comes back to.
let cameBack;
const callback = new Promise((resolve) => (cameBack = resolve));
const listener = createServer((request, response) => {
  response.end('You can close this window.');
  cameBack(new URL(request.url, redirectUrl));
});
await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
const redirectUrl = `http://127.0.0.1:${listener.address().port}/callback`;

const kept = {};
const state = crypto.randomUUID();
const provider = {
  redirectUrl,
  clientMetadataUrl: document || undefined,
  clientMetadata: {
    client_name: `${packageName} in a test`,
    redirect_uris: [redirectUrl],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
  },
  state: () => state,
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (discovery) => void (kept.discovery = discovery),
  redirectToAuthorization: (to) =>
    void spawn(process.env.BROWSER, [to.href], { stdio: 'ignore', detached: true }),
};

const options = era === 'auto' ? { versionNegotiation: { mode: 'auto' } } : {};
const connect = async () => {
  const client = new Client({ name: 'sdk-client', version: '1' }, options);
  const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: provider });
  try {
    await client.connect(transport);
    return [client, transport];
  } catch (failed) {
    if (!(failed instanceof UnauthorizedError) || kept.tokens) throw failed;
    const back = await callback;
    if (back.searchParams.get('state') !== state) throw new Error('another state came back');
    if (!back.searchParams.has('code')) throw new Error(`no code came back: ${back.search}`);
    await transport.finishAuth(
      packageName === '@modelcontextprotocol/sdk' ? back.searchParams.get('code') : back.searchParams,
    );
    return connect();
  }
};

const [client, transport] = await connect();
const { tools } = await client.listTools();
const result = await client.callTool({ name: tool, arguments: {} });
const [session, server] = [transport.sessionId, client.getServerVersion()];
await transport.terminateSession();
await client.close();
listener.close();
console.log(
  JSON.stringify({
    server,
    tools: tools.map((each) => each.name),
    client: kept.client.client_id,
    session: Boolean(session),
    refreshable: Boolean(kept.tokens.refresh_token),
    result,
  }),
);
