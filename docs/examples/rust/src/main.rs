//! A wallet in ten steps, with the client that openapi-generator made of the contract in `tallystick/`.

use std::env;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use tallystick::apis::configuration::Configuration;
use tallystick::apis::{Error as ApiError, accounts_api, events_api, ledgers_api, transactions_api};
use tallystick::models::{
    CaptureAmount, CaptureTransactionRequest, CreateAccountRequest, CreateLedgerRequest, Order, PostTransactionRequest,
    PostingRequest, ProblemDetails, Side, Transaction,
};

const TRIES_MAX: u32 = 5;

type Failure = Box<dyn Error + Send + Sync>;

// step: refusals and retries
/// The service said no; a program looks at the problem's `code`.
#[derive(Debug)]
struct Refused(ProblemDetails);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.detail)
    }
}

impl Error for Refused {}

/// Every refusal of every operation is one kind of document, so it is read from the text of the answer.
fn failed<T: fmt::Debug + Send + Sync + 'static>(error: ApiError<T>) -> Failure {
    match error {
        ApiError::ResponseError(answer) => match serde_json::from_str(&answer.content) {
            Ok(problem) => Refused(problem).into(),
            Err(_) => format!("Not in the contract: {}", answer.status).into(),
        },
        other => other.into(),
    }
}

/// Tries again after 429 and 503. The request carries its key with it, so that it takes effect once, even if the
/// service could not say whether it had (`outcome_unknown`).
struct Retrying {
    replayed: Arc<AtomicBool>, // whether the last answer was the first one given again; the client shows no headers
}

#[async_trait::async_trait]
impl Middleware for Retrying {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        for tries in 1.. {
            let copy = request.try_clone().expect("JSON bodies are in memory");
            let response = next.clone().run(copy, extensions).await?;
            let headers = response.headers();
            if tries == TRIES_MAX || !matches!(response.status().as_u16(), 429 | 503) {
                self.replayed.store(headers.contains_key("Idempotency-Replayed"), Ordering::Relaxed);
                return Ok(response);
            }
            let seconds = headers.get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
        }
        unreachable!("the last try returns")
    }
}

struct Wallets {
    client: Configuration,
    ledger: String,
    replayed: Arc<AtomicBool>,
}

impl Wallets {
    fn connect() -> Result<Self, Failure> {
        let replayed = Arc::new(AtomicBool::default());
        let retrying = Retrying { replayed: replayed.clone() };
        let client = Configuration {
            base_path: env::var("TALLYSTICK_URL").unwrap_or("http://127.0.0.1:8000".into()),
            bearer_access_token: Some(env::var("TALLYSTICK_KEY")?),
            client: ClientBuilder::new(reqwest::Client::new()).with(retrying).build(),
            ..Configuration::default()
        };
        Ok(Self { client, ledger: env::var("TALLYSTICK_LEDGER").unwrap_or("scenario".into()), replayed })
    }

    /// Amounts are strings on the wire and `i128` here, which holds 38 digits; a float never touches them.
    async fn post(
        &self,
        key: &str,
        debit: &str,
        credit: &str,
        amount: i128,
        pending: bool,
    ) -> Result<Transaction, Failure> {
        let posting = PostingRequest::new(debit.into(), credit.into(), amount.to_string());
        let body = PostTransactionRequest { pending: Some(pending), ..PostTransactionRequest::new(vec![posting]) };
        transactions_api::post_transaction(&self.client, &self.ledger, key, body).await.map_err(failed)
    }

    async fn available(&self, account: &str) -> Result<i128, Failure> {
        let account = accounts_api::get_account(&self.client, &self.ledger, account).await.map_err(failed)?;
        Ok(account.available.parse()?)
    }
}

fn account(path: &str, asset: &str, side: Side) -> CreateAccountRequest {
    CreateAccountRequest::new(path.into(), asset.into(), side)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wallets = Wallets::connect()?;
    let Wallets { client, ledger, .. } = &wallets;

    // step: open accounts
    ledgers_api::create_ledger(client, CreateLedgerRequest::new(ledger.clone())).await.map_err(failed)?;
    for account in [
        account("bank:cash", "USD/2", Side::Debit),
        CreateAccountRequest { minimum_balance: Some("0".into()), ..account("users:42:wallet", "USD/2", Side::Credit) },
        account("shop:sales", "USD/2", Side::Credit),
        account("chain:vault", "ETH/18", Side::Debit),
        account("users:42:eth", "ETH/18", Side::Credit),
    ] {
        let key = format!("open-{}", account.path);
        let opened = accounts_api::create_account(client, ledger, &key, account).await.map_err(failed)?;
        println!("open accounts: {} in {} at {}", opened.path, opened.asset, opened.sequence);
    }

    // step: post
    let deposit = wallets.post("deposit-1001", "bank:cash", "users:42:wallet", 1250, false).await?;
    println!("post: 1250 at {}, available {}", deposit.sequence, wallets.available("users:42:wallet").await?);

    // step: replay
    let again = wallets.post("deposit-1001", "bank:cash", "users:42:wallet", 1250, false).await?;
    let what = if wallets.replayed.load(Ordering::Relaxed) { "the first answer" } else { "a new one" };
    println!("replay: {what}, at {}", again.sequence);

    // step: hold
    let hold = wallets.post("order-78", "users:42:wallet", "shop:sales", 700, true).await?;
    let available = wallets.available("users:42:wallet").await?;
    println!("hold: {} at {}, available {available}", hold.postings[0].amount, hold.sequence);

    // step: capture
    let part = CaptureTransactionRequest {
        amounts: Some(vec![CaptureAmount::new(0, "400".into())]),
        ..CaptureTransactionRequest::new()
    };
    let captured =
        transactions_api::capture_transaction(client, ledger, hold.sequence, "ship-78", part).await.map_err(failed)?;
    let line = &captured.postings[0];
    let available = wallets.available("users:42:wallet").await?;
    println!("capture: {} at {}, released {}, available {available}", line.amount, captured.sequence, line.released);

    // step: refuse
    if let Err(error) = wallets.post("payout-7", "users:42:wallet", "bank:cash", 5000, false).await {
        let Refused(problem) = *error.downcast::<Refused>()?;
        let available = problem.available.unwrap_or_default();
        let required = problem.required.unwrap_or_default();
        println!("refuse: {} {}, available {available}, required {required}", problem.status, problem.code);
    }

    // step: large amount
    let wei = (1 << 53) + 1;
    wallets.post("wei-1", "chain:vault", "users:42:eth", wei, false).await?;
    println!("large amount: {wei} held, one more would be {}", wallets.available("users:42:eth").await? + 1);

    // step: retry
    let sale = wallets.post("sale-1002", "users:42:wallet", "shop:sales", 50, false).await?;
    println!("retry: posted once, at {}, available {}", sale.sequence, wallets.available("users:42:wallet").await?);

    // step: statement
    let mut cursor: Option<String> = None;
    loop {
        let (order, limit, from) = (Some(Order::Oldest), Some(2), cursor.as_deref());
        let page = accounts_api::list_account_entries(client, ledger, "users:42:wallet", None, order, limit, from)
            .await
            .map_err(failed)?;
        let lines: Vec<String> =
            page.items.iter().map(|entry| format!("{} {} makes {}", entry.side, entry.amount, entry.balance)).collect();
        println!("statement: {}", lines.join(", "));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }

    // step: feed
    let mut after = 0;
    loop {
        let page = events_api::list_events(client, ledger, Some(after), Some(4), None).await.map_err(failed)?;
        for event in page.items {
            if event.sequence != after + 1 {
                return Err(format!("The feed went from {after} to {}", event.sequence).into());
            }
            after = event.sequence;
        }
        println!("feed: read to {after} without a gap");
        if page.next_after_sequence == page.sequence {
            break;
        }
    }

    // step: long poll
    let news = events_api::list_events(client, ledger, Some(after), None, Some(20));
    let sale = wallets.post("sale-1003", "users:42:wallet", "shop:sales", 25, false);
    let (news, sale) = tokio::join!(news, sale);
    sale?;
    for event in news.map_err(failed)?.items {
        println!("long poll: {} at {}", event.kind, event.sequence);
    }
    Ok(())
}
