import com.fasterxml.jackson.core.JsonProcessingException;
import java.math.BigInteger;
import java.net.http.HttpHeaders;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import tallystick.api.AccountsApi;
import tallystick.api.EventsApi;
import tallystick.api.LedgersApi;
import tallystick.api.TransactionsApi;
import tallystick.client.ApiClient;
import tallystick.client.ApiException;
import tallystick.client.ApiResponse;
import tallystick.model.AccountEntryPage;
import tallystick.model.CaptureAmount;
import tallystick.model.CaptureTransactionRequest;
import tallystick.model.CreateAccountRequest;
import tallystick.model.CreateLedgerRequest;
import tallystick.model.Event;
import tallystick.model.EventPage;
import tallystick.model.Order;
import tallystick.model.PostTransactionRequest;
import tallystick.model.Posting;
import tallystick.model.PostingRequest;
import tallystick.model.ProblemDetails;
import tallystick.model.Side;
import tallystick.model.Transaction;

/** A wallet in ten steps, with the client that openapi-generator made of the contract in {@code tallystick/}. */
public final class Scenario {
  private static final int TRIES_MAX = 5;

  private final String ledger = environment("TALLYSTICK_LEDGER", "scenario");
  private final ApiClient client = new ApiClient();
  private final LedgersApi ledgers;
  private final AccountsApi accounts;
  private final TransactionsApi transactions;
  private final EventsApi events;

  private Scenario() {
    client.updateBaseUri(environment("TALLYSTICK_URL", "http://127.0.0.1:8000"));
    client.setRequestInterceptor(
        request -> request.header("Authorization", "Bearer " + environment("TALLYSTICK_KEY", "")));
    client.setReadTimeout(Duration.ofSeconds(30)); // longer than the feed may wait
    ledgers = new LedgersApi(client);
    accounts = new AccountsApi(client);
    transactions = new TransactionsApi(client);
    events = new EventsApi(client);
  }

  // step: refusals and retries
  /** The service said no; a program looks at the problem's code. */
  private static final class Refused extends Exception {
    private static final long serialVersionUID = 1L;
    private final transient ProblemDetails problem;

    private Refused(ProblemDetails problem) {
      super(problem.getDetail());
      this.problem = problem;
    }
  }

  @FunctionalInterface
  private interface Call<T> {
    T send() throws ApiException;
  }

  /**
   * Tries again after 429 and 503. The call carries its key with it, so that it takes effect once, even if the service
   * could not say whether it had ({@code outcome_unknown}).
   */
  private <T> T send(Call<T> call) throws Refused, ApiException, InterruptedException, JsonProcessingException {
    for (int tries = 1; ; tries++) {
      try {
        return call.send();
      } catch (ApiException error) {
        if (tries == TRIES_MAX || (error.getCode() != 429 && error.getCode() != 503)) {
          if (error.getResponseBody() == null) throw error; // nothing was answered at all
          throw new Refused(client.getObjectMapper().readValue(error.getResponseBody(), ProblemDetails.class));
        }
        HttpHeaders headers = error.getResponseHeaders();
        Thread.sleep(Duration.ofSeconds(headers.firstValueAsLong("Retry-After").orElse(1)).toMillis());
      }
    }
  }

  /** Amounts are strings on the wire and whole numbers of any size here; a double never touches them. */
  private ApiResponse<Transaction> post(String key, String debit, String credit, BigInteger amount, boolean pending)
      throws Exception {
    PostingRequest posting =
        new PostingRequest().debitAccount(debit).creditAccount(credit).amount(amount.toString());
    PostTransactionRequest body = new PostTransactionRequest().addPostingsItem(posting).pending(pending);
    return send(() -> transactions.postTransactionWithHttpInfo(ledger, key, body));
  }

  private Transaction post(String key, String debit, String credit, long amount) throws Exception {
    return post(key, debit, credit, BigInteger.valueOf(amount), false).getData();
  }

  private BigInteger available(String account) throws Exception {
    return new BigInteger(send(() -> accounts.getAccount(ledger, account)).getAvailable());
  }

  private void run() throws Exception {
    // step: open accounts
    send(() -> ledgers.createLedger(new CreateLedgerRequest().name(ledger)));
    List<CreateAccountRequest> requests =
        List.of(
            new CreateAccountRequest().path("bank:cash").asset("USD/2").normalSide(Side.DEBIT),
            new CreateAccountRequest().path("users:42:wallet").asset("USD/2").normalSide(Side.CREDIT)
                .minimumBalance("0"),
            new CreateAccountRequest().path("shop:sales").asset("USD/2").normalSide(Side.CREDIT),
            new CreateAccountRequest().path("chain:vault").asset("ETH/18").normalSide(Side.DEBIT),
            new CreateAccountRequest().path("users:42:eth").asset("ETH/18").normalSide(Side.CREDIT));
    for (CreateAccountRequest request : requests) {
      var opened = send(() -> accounts.createAccount(ledger, "open-" + request.getPath(), request));
      say("open accounts: %s in %s at %d", opened.getPath(), opened.getAsset(), opened.getSequence());
    }

    // step: post
    Transaction deposit = post("deposit-1001", "bank:cash", "users:42:wallet", 1250);
    say("post: 1250 at %d, available %d", deposit.getSequence(), available("users:42:wallet"));

    // step: replay
    var again = post("deposit-1001", "bank:cash", "users:42:wallet", BigInteger.valueOf(1250), false);
    boolean replayed = again.getHeaders().containsKey("idempotency-replayed");
    say("replay: %s, at %d", replayed ? "the first answer" : "a new one", again.getData().getSequence());

    // step: hold
    Transaction hold = post("order-78", "users:42:wallet", "shop:sales", BigInteger.valueOf(700), true).getData();
    String held = hold.getPostings().get(0).getAmount();
    say("hold: %s at %d, available %d", held, hold.getSequence(), available("users:42:wallet"));

    // step: capture
    var part = new CaptureTransactionRequest().addAmountsItem(new CaptureAmount().posting(0L).amount("400"));
    Transaction captured =
        send(() -> transactions.captureTransaction(ledger, hold.getSequence(), "ship-78", part));
    Posting line = captured.getPostings().get(0);
    say("capture: %s at %d, released %s, available %d",
        line.getAmount(), captured.getSequence(), line.getReleased(), available("users:42:wallet"));

    // step: refuse
    try {
      post("payout-7", "users:42:wallet", "bank:cash", 5000);
    } catch (Refused refused) {
      ProblemDetails problem = refused.problem;
      say("refuse: %d %s, available %s, required %s",
          problem.getStatus(), problem.getCode(), problem.getAvailable(), problem.getRequired());
    }

    // step: large amount
    BigInteger wei = BigInteger.TWO.pow(53).add(BigInteger.ONE);
    post("wei-1", "chain:vault", "users:42:eth", wei, false);
    say("large amount: %d held, one more would be %d", wei, available("users:42:eth").add(BigInteger.ONE));

    // step: retry
    Transaction sale = post("sale-1002", "users:42:wallet", "shop:sales", 50);
    say("retry: posted once, at %d, available %d", sale.getSequence(), available("users:42:wallet"));

    // step: statement
    String cursor = null;
    do {
      String from = cursor;
      AccountEntryPage page =
          send(() -> accounts.listAccountEntries(ledger, "users:42:wallet", null, Order.OLDEST, 2L, from));
      say("statement: %s", page.getItems().stream()
          .map(entry -> entry.getSide() + " " + entry.getAmount() + " makes " + entry.getBalance())
          .collect(Collectors.joining(", ")));
      cursor = page.getNextCursor();
    } while (cursor != null);

    // step: feed
    long after = 0;
    EventPage page;
    do {
      page = readFeed(after, 4, 0);
      for (Event event : page.getItems()) {
        if (event.getSequence() != after + 1) {
          throw new IllegalStateException("The feed went from " + after + " to " + event.getSequence());
        }
        after = event.getSequence();
      }
      say("feed: read to %d without a gap", after);
    } while (page.getNextAfterSequence() < page.getSequence());

    // step: long poll
    long end = after;
    var news = CompletableFuture.supplyAsync(() -> readFeed(end, 100, 20));
    post("sale-1003", "users:42:wallet", "shop:sales", 25);
    for (Event event : news.get().getItems()) {
      say("long poll: %s at %d", event.getKind(), event.getSequence());
    }
  }

  private EventPage readFeed(long after, long limit, long wait) {
    try {
      return send(() -> events.listEvents(ledger, after, limit, wait));
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  private static String environment(String name, String otherwise) {
    return Objects.requireNonNullElse(System.getenv(name), otherwise);
  }

  private static void say(String format, Object... values) {
    System.out.println(String.format(format, values));
  }

  public static void main(String[] arguments) throws Exception {
    new Scenario().run();
  }
}
