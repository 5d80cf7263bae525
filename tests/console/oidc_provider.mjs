// A real identity provider: the npm package oidc-provider, with people who may be anybody. The console's tests sign in there.
//
// Usage: node oidc_provider.mjs DIRECTORY, which has node_modules. Prints its issuer, then serves until it is ended.
// Whoever logs in as X has the address X; "unverified:X" has it unverified.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const entry = `${process.argv[2]}/node_modules/oidc-provider/lib/index.js`;
const { default: Provider } = await import(pathToFileURL(entry).href);

const UNVERIFIED = "unverified:";

function account(id) {
  const claims = {
    sub: id,
    email: id.replace(UNVERIFIED, ""),
    email_verified: !id.startsWith(UNVERIFIED),
  };
  return { accountId: id, claims: () => claims };
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "tunewarden",
        client_secret: "a secret + of / this server",
        // A native client's loopback address may have any port.
        application_type: "native",
        redirect_uris: ["http://127.0.0.1/console/sso/callback"],
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    cookies: { keys: ["a key of tests"] },
    findAccount: (_, id) => account(id),
    pkce: { required: () => true },
  });
  server.on("request", provider.callback());
  console.log(`issuer ${issuer}`);
});
