def test_posts_a_transaction(client, ledger):
    for n, (path, side) in enumerate((("cash", "debit"), ("users:1:wallet", "credit"))):
        answer = client.post(f"/v1/ledgers/{ledger}/accounts", json={"path": path, "asset": "USD/2", "normal_side": side, "minimum_balance": "0"}, headers={"Idempotency-Key": f"a{n}"})
        assert answer.status_code == 201, answer.text
    body = {"postings": [{"debit_account": "cash", "credit_account": "users:1:wallet", "amount": "1250"}]}
    first = client.post(f"/v1/ledgers/{ledger}/transactions", json=body, headers={"Idempotency-Key": "t"})
    assert first.status_code == 201
    again = client.post(f"/v1/ledgers/{ledger}/transactions", json=body, headers={"Idempotency-Key": "t"})
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    for path in ("", "/accounts", "/accounts/cash", "/accounts/cash/entries", "/transactions", "/transactions/4", "/events"):
        answer = client.get(f"/v1/ledgers/{ledger}{path}")
        assert answer.status_code == 200, answer.text
