// A wallet in ten steps, with the client that oapi-codegen made of the contract in tallystick/.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"tallystick.example/scenario/tallystick"
)

//go:generate mkdir -p tallystick
//go:generate go tool oapi-codegen -config oapi-codegen.yaml ../../../openapi.yaml

const triesMax = 5

var (
	ctx    = context.Background()
	ledger = cmp.Or(os.Getenv("TALLYSTICK_LEDGER"), "scenario")
	client = connect(cmp.Or(os.Getenv("TALLYSTICK_URL"), "http://127.0.0.1:8000"), os.Getenv("TALLYSTICK_KEY"))
)

func connect(url, key string) *tallystick.ClientWithResponses {
	authorize := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+key)
		return nil
	}
	return must(tallystick.NewClientWithResponses(
		url, tallystick.WithHTTPClient(retrying{}), tallystick.WithRequestEditorFn(authorize),
	))
}

// step: refusals and retries

// refused is the service's no; a program looks at its Code.
type refused tallystick.ProblemDetails

func (problem *refused) Error() string { return problem.Detail }

// retrying tries again after 429 and 503. The request carries its key with it, so that it takes effect once, even if
// the service could not say whether it had (outcome_unknown).
type retrying struct{}

func (retrying) Do(request *http.Request) (*http.Response, error) {
	for tries := 1; ; tries++ {
		response, err := http.DefaultClient.Do(request)
		if err != nil || tries == triesMax || (response.StatusCode != 429 && response.StatusCode != 503) {
			return response, err
		}
		response.Body.Close()
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		time.Sleep(time.Duration(max(seconds, 1)) * time.Second)
		if request.GetBody != nil {
			request.Body = must(request.GetBody())
		}
	}
}

// bodyOf is what the service answered, or why it did not: every refusal, whatever its status, is one kind of document.
func bodyOf[T any](body *T, answer interface{ GetBody() []byte }) (*T, error) {
	if body != nil {
		return body, nil
	}
	problem := new(refused)
	return nil, errors.Join(json.Unmarshal(answer.GetBody(), problem), problem)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// post takes whole numbers of any size, which are strings on the wire; a float never touches them.
func post(key, debit, credit string, amount *big.Int, pending bool) (*tallystick.Transaction, bool, error) {
	answer := must(client.PostTransactionWithResponse(
		ctx, ledger, &tallystick.PostTransactionParams{IdempotencyKey: key},
		tallystick.PostTransactionRequest{
			Pending:  &pending,
			Postings: []tallystick.PostingRequest{{DebitAccount: debit, CreditAccount: credit, Amount: amount.String()}},
		},
	))
	transaction, err := bodyOf(answer.JSON201, answer)
	return transaction, answer.HTTPResponse.Header.Get("Idempotency-Replayed") == "true", err
}

func available(account string) *big.Int {
	answer := must(client.GetAccountWithResponse(ctx, ledger, account))
	amount, _ := new(big.Int).SetString(must(bodyOf(answer.JSON200, answer)).Available, 10)
	return amount
}

func readFeed(after int64, limit int64, wait int64) *tallystick.EventPage {
	answer := must(client.ListEventsWithResponse(ctx, ledger, &tallystick.ListEventsParams{
		AfterSequence: &after, Limit: &limit, WaitSeconds: &wait,
	}))
	return must(bodyOf(answer.JSON200, answer))
}

func main() {
	// step: open accounts
	created := must(client.CreateLedgerWithResponse(ctx, tallystick.CreateLedgerRequest{Name: ledger}))
	must(bodyOf(created.JSON201, created))
	none := "0"
	for _, account := range []tallystick.CreateAccountRequest{
		{Path: "bank:cash", Asset: "USD/2", NormalSide: tallystick.SideDebit},
		{Path: "users:42:wallet", Asset: "USD/2", NormalSide: tallystick.SideCredit, MinimumBalance: &none},
		{Path: "shop:sales", Asset: "USD/2", NormalSide: tallystick.SideCredit},
		{Path: "chain:vault", Asset: "ETH/18", NormalSide: tallystick.SideDebit},
		{Path: "users:42:eth", Asset: "ETH/18", NormalSide: tallystick.SideCredit},
	} {
		params := &tallystick.CreateAccountParams{IdempotencyKey: "open-" + account.Path}
		answer := must(client.CreateAccountWithResponse(ctx, ledger, params, account))
		opened := must(bodyOf(answer.JSON201, answer))
		fmt.Printf("open accounts: %s in %s at %d\n", opened.Path, opened.Asset, opened.Sequence)
	}

	// step: post
	deposit, _, err := post("deposit-1001", "bank:cash", "users:42:wallet", big.NewInt(1250), false)
	fmt.Printf("post: 1250 at %d, available %d\n", must(deposit, err).Sequence, available("users:42:wallet"))

	// step: replay
	again, replayed, err := post("deposit-1001", "bank:cash", "users:42:wallet", big.NewInt(1250), false)
	what := map[bool]string{true: "the first answer", false: "a new one"}[replayed]
	fmt.Printf("replay: %s, at %d\n", what, must(again, err).Sequence)

	// step: hold
	hold, _, err := post("order-78", "users:42:wallet", "shop:sales", big.NewInt(700), true)
	held := must(hold, err).Postings[0].Amount
	fmt.Printf("hold: %s at %d, available %d\n", held, hold.Sequence, available("users:42:wallet"))

	// step: capture
	answer := must(client.CaptureTransactionWithResponse(
		ctx, ledger, hold.Sequence, &tallystick.CaptureTransactionParams{IdempotencyKey: "ship-78"},
		tallystick.CaptureTransactionRequest{Amounts: &[]tallystick.CaptureAmount{{Posting: 0, Amount: "400"}}},
	))
	captured := must(bodyOf(answer.JSON201, answer))
	line := captured.Postings[0]
	fmt.Printf("capture: %s at %d, released %s, available %d\n",
		line.Amount, captured.Sequence, line.Released, available("users:42:wallet"))

	// step: refuse
	_, _, err = post("payout-7", "users:42:wallet", "bank:cash", big.NewInt(5000), false)
	if problem := new(refused); errors.As(err, &problem) {
		fmt.Printf("refuse: %d %s, available %s, required %s\n",
			problem.Status, problem.Code, *problem.Available, *problem.Required)
	}

	// step: large amount
	wei := big.NewInt(1<<53 + 1)
	_, _, err = post("wei-1", "chain:vault", "users:42:eth", wei, false)
	must(wei, err)
	more := new(big.Int).Add(available("users:42:eth"), big.NewInt(1))
	fmt.Printf("large amount: %d held, one more would be %d\n", wei, more)

	// step: retry
	sale, _, err := post("sale-1002", "users:42:wallet", "shop:sales", big.NewInt(50), false)
	fmt.Printf("retry: posted once, at %d, available %d\n", must(sale, err).Sequence, available("users:42:wallet"))

	// step: statement
	order, limit := tallystick.OrderOldest, int64(2)
	query := &tallystick.ListAccountEntriesParams{Order: &order, Limit: &limit}
	for more := true; more; {
		answer := must(client.ListAccountEntriesWithResponse(ctx, ledger, "users:42:wallet", query))
		page := must(bodyOf(answer.JSON200, answer))
		var lines []string
		for _, entry := range page.Items {
			lines = append(lines, fmt.Sprintf("%s %s makes %s", entry.Side, entry.Amount, entry.Balance))
		}
		fmt.Println("statement:", strings.Join(lines, ", "))
		query.Cursor, more = page.NextCursor, page.NextCursor != nil
	}

	// step: feed
	after := int64(0)
	for more := true; more; {
		page := readFeed(after, 4, 0)
		for _, event := range page.Items {
			if event.Sequence != after+1 {
				log.Fatalf("The feed went from %d to %d", after, event.Sequence)
			}
			after = event.Sequence
		}
		fmt.Printf("feed: read to %d without a gap\n", after)
		more = page.NextAfterSequence < page.Sequence
	}

	// step: long poll
	news := make(chan *tallystick.EventPage)
	go func() { news <- readFeed(after, 100, 20) }()
	last, _, err := post("sale-1003", "users:42:wallet", "shop:sales", big.NewInt(25), false)
	must(last, err)
	for _, event := range (<-news).Items {
		fmt.Printf("long poll: %s at %d\n", event.Kind, event.Sequence)
	}
}
