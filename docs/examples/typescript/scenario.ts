// A wallet in ten steps, with the types that openapi-typescript made of the contract in `tallystick/`.

import createClient from "openapi-fetch";
import type { components, paths } from "./tallystick/schema.js";

type ProblemDetails = components["schemas"]["ProblemDetails"];

const ledger = process.env.TALLYSTICK_LEDGER ?? "scenario";
const triesMax = 5;

const client = createClient<paths>({
  baseUrl: process.env.TALLYSTICK_URL ?? "http://127.0.0.1:8000",
  headers: { Authorization: `Bearer ${process.env.TALLYSTICK_KEY}` },
});

// step: refusals and retries
/** The service said no; a program looks at `problem.code`. */
class Refused extends Error {
  constructor(readonly problem: ProblemDetails) {
    super(problem.detail);
  }
}

type Answer<T> = { data?: T; error?: ProblemDetails; response: Response };

/** Try again after 429 and 503. `call` carries its key with it, so that it takes effect once, even if the service
 * could not say whether it had (`outcome_unknown`). */
async function send<T>(call: () => Promise<Answer<T>>): Promise<{ body: T; replayed: boolean }> {
  for (let tries = 1; ; tries++) {
    const { data, error, response } = await call();
    if (data !== undefined) {
      return { body: data, replayed: response.headers.get("Idempotency-Replayed") === "true" };
    }
    if (tries === triesMax || (response.status !== 429 && response.status !== 503)) {
      throw error ? new Refused(error) : new Error(`Not in the contract: ${response.status}`);
    }
    const seconds = Number(response.headers.get("Retry-After") ?? "1");
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** Amounts are strings on the wire and bigints here; a JavaScript number never touches them. */
function post(key: string, debit: string, credit: string, amount: bigint, options: { pending?: boolean } = {}) {
  const posting = { debit_account: debit, credit_account: credit, amount: amount.toString() };
  return send(() =>
    client.POST("/v1/ledgers/{ledger}/transactions", {
      params: { path: { ledger }, header: { "Idempotency-Key": key } },
      body: { postings: [posting], pending: options.pending ?? false },
    }),
  );
}

async function available(account: string): Promise<bigint> {
  const path = { ledger, account };
  const { body } = await send(() => client.GET("/v1/ledgers/{ledger}/accounts/{account}", { params: { path } }));
  return BigInt(body.available);
}

// step: open accounts
const accounts: components["schemas"]["CreateAccountRequest"][] = [
  { path: "bank:cash", asset: "USD/2", normal_side: "debit" },
  { path: "users:42:wallet", asset: "USD/2", normal_side: "credit", minimum_balance: "0" },
  { path: "shop:sales", asset: "USD/2", normal_side: "credit" },
  { path: "chain:vault", asset: "ETH/18", normal_side: "debit" },
  { path: "users:42:eth", asset: "ETH/18", normal_side: "credit" },
];
await send(() => client.POST("/v1/ledgers", { body: { name: ledger } }));
for (const account of accounts) {
  const { body } = await send(() =>
    client.POST("/v1/ledgers/{ledger}/accounts", {
      params: { path: { ledger }, header: { "Idempotency-Key": `open-${account.path}` } },
      body: account,
    }),
  );
  console.log(`open accounts: ${body.path} in ${body.asset} at ${body.sequence}`);
}

// step: post
const deposit = await post("deposit-1001", "bank:cash", "users:42:wallet", 1250n);
console.log(`post: 1250 at ${deposit.body.sequence}, available ${await available("users:42:wallet")}`);

// step: replay
const again = await post("deposit-1001", "bank:cash", "users:42:wallet", 1250n);
console.log(`replay: ${again.replayed ? "the first answer" : "a new one"}, at ${again.body.sequence}`);

// step: hold
const { body: hold } = await post("order-78", "users:42:wallet", "shop:sales", 700n, { pending: true });
console.log(`hold: ${hold.postings[0]?.amount} at ${hold.sequence}, available ${await available("users:42:wallet")}`);

// step: capture
const { body: captured } = await send(() =>
  client.POST("/v1/ledgers/{ledger}/transactions/{sequence}/capture", {
    params: { path: { ledger, sequence: hold.sequence }, header: { "Idempotency-Key": "ship-78" } },
    body: { amounts: [{ posting: 0, amount: "400" }] },
  }),
);
const line = captured.postings[0];
console.log(
  `capture: ${line?.amount} at ${captured.sequence}, released ${line?.released}, ` +
    `available ${await available("users:42:wallet")}`,
);

// step: refuse
try {
  await post("payout-7", "users:42:wallet", "bank:cash", 5000n);
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  const { status, code, available, required } = error.problem;
  console.log(`refuse: ${status} ${code}, available ${available}, required ${required}`);
}

// step: large amount
const wei = 2n ** 53n + 1n;
await post("wei-1", "chain:vault", "users:42:eth", wei);
console.log(`large amount: ${wei} held, one more would be ${(await available("users:42:eth")) + 1n}`);

// step: retry
const { body: sale } = await post("sale-1002", "users:42:wallet", "shop:sales", 50n);
console.log(`retry: posted once, at ${sale.sequence}, available ${await available("users:42:wallet")}`);

// step: statement
let cursor: string | null = null;
do {
  const { body: page } = await send(() =>
    client.GET("/v1/ledgers/{ledger}/accounts/{account}/entries", {
      params: {
        path: { ledger, account: "users:42:wallet" },
        query: { order: "oldest", limit: 2, ...(cursor === null ? {} : { cursor }) },
      },
    }),
  );
  const lines = page.items.map((entry) => `${entry.side} ${entry.amount} makes ${entry.balance}`);
  console.log(`statement: ${lines.join(", ")}`);
  cursor = page.next_cursor;
} while (cursor !== null);

// step: feed
function readFeed(after: number, query: { limit?: number; wait_seconds?: number }) {
  const params = { path: { ledger }, query: { after_sequence: after, ...query } };
  return send(() => client.GET("/v1/ledgers/{ledger}/events", { params }));
}

let after = 0;
for (let end = 1; after < end; ) {
  const { body: page } = await readFeed(after, { limit: 4 });
  for (const event of page.items) {
    if (event.sequence !== after + 1) throw new Error(`The feed went from ${after} to ${event.sequence}`);
    after = event.sequence;
  }
  console.log(`feed: read to ${after} without a gap`);
  end = page.sequence;
}

// step: long poll
const news = readFeed(after, { wait_seconds: 20 });
await post("sale-1003", "users:42:wallet", "shop:sales", 25n);
for (const event of (await news).body.items) {
  console.log(`long poll: ${event.kind} at ${event.sequence}`);
}
