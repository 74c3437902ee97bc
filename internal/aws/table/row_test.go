package table_test

import (
	"bytes"
	crand "crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/journal"
)

type item = map[string]types.AttributeValue

func s(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
func n(v string) types.AttributeValue { return &types.AttributeValueMemberN{Value: v} }

// raw reads and writes a table as other programs do.
type raw struct {
	t    *testing.T
	c    *dynamodb.Client
	name string
}

func (r raw) put(i item) {
	r.t.Helper()
	if _, err := r.c.PutItem(r.t.Context(), &dynamodb.PutItemInput{TableName: &r.name, Item: i}); err != nil {
		r.t.Fatal(err)
	}
}

func (r raw) get(key string) item {
	r.t.Helper()
	got, err := r.c.GetItem(r.t.Context(), &dynamodb.GetItemInput{TableName: &r.name, Key: item{"projectKey": s(key)}, ConsistentRead: aws.Bool(true)})
	if err != nil {
		r.t.Fatal(err)
	}
	return got.Item
}

// indexed returns the keys that the index lists.
func (r raw) indexed() []string {
	r.t.Helper()
	got, err := r.c.Scan(r.t.Context(), &dynamodb.ScanInput{TableName: &r.name, IndexName: aws.String("containerId-index")})
	if err != nil {
		r.t.Fatal(err)
	}
	var keys []string
	for _, i := range got.Items {
		keys = append(keys, i["projectKey"].(*types.AttributeValueMemberS).Value)
	}
	return keys
}

func open(t *testing.T) (raw, *table.Tables) {
	t.Helper()
	config := ownership()
	c := client(t, nil)
	return raw{t: t, c: c, name: config.Ownership}, create(t, c, config)
}

// TestForeignRows: what the platform's older containers wrote is read, and taken
// over as it was seen; nothing of it can block a project.
func TestForeignRows(t *testing.T) {
	r, tables := open(t)
	claims := tables.Claims()
	old := time.Now().Add(-time.Hour).UnixMilli()
	for name, row := range map[string]item{
		"as the platform writes":  {"containerId": s("old"), "status": s("active"), "claimedAt": n("1"), "lastActivity": n(fmt.Sprint(old)), "ttl": n("9999999999")},
		"key only":                {},
		"a fraction":              {"containerId": s("old"), "status": s("active"), "lastActivity": n(fmt.Sprint(old) + ".75")},
		"text for numbers":        {"containerId": s("old"), "status": s("active"), "lastActivity": s(fmt.Sprint(old)), "ttl": s("soon"), "fence": s("9"), "rev": s("1")},
		"other types":             {"containerId": s("old"), "status": &types.AttributeValueMemberBOOL{Value: true}, "tenure": n("3"), "claimedAt": &types.AttributeValueMemberNULL{Value: true}},
		"zeros":                   {"containerId": s("old"), "status": s("active"), "lastActivity": n(fmt.Sprint(old)), "fence": n("0"), "rev": n("0")},
		"a status nobody knows":   {"containerId": s("old"), "status": s("stopped"), "lastActivity": n(fmt.Sprint(time.Now().UnixMilli()))},
		"more than we know":       {"containerId": s("old"), "status": s("active"), "lastActivity": n("5"), "taskArn": s("arn"), "m": &types.AttributeValueMemberM{Value: item{"a": s("b")}}},
		"released, still indexed": {"containerId": s("old"), "status": s("released"), "lastActivity": n("5")},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			row["projectKey"] = s("a#" + name)
			r.put(row)
			seen, err := claims.Get(t.Context(), "a#"+name)
			if err != nil {
				t.Fatal(err)
			}
			stale := seen
			stale.LastActivity = time.UnixMilli(77)
			if err := claims.Put(t.Context(), stale, stale); !errors.Is(err, claim.ErrMoved) {
				t.Fatalf("Put over what is no longer there: %v", err)
			}
			lease, err := (&claim.Claims{Table: claims, ContainerID: "new"}).Acquire(t.Context(), "a#"+name)
			if err != nil {
				t.Fatal(err)
			}
			defer lease.Abandon()
			if err := claims.Put(t.Context(), seen, seen); !errors.Is(err, claim.ErrMoved) {
				t.Fatalf("Put over a row that is ours by now: %v", err)
			}
		})
	}
}

// TestARowAsOthersReadIt: types, units and what is left out.
func TestARowAsOthersReadIt(t *testing.T) {
	r, tables := open(t)
	claims := tables.Claims()
	at := time.UnixMilli(1_760_000_000_123)
	row := claim.Row{
		ProjectKey: "a#b", ContainerID: "c1", ClaimedAt: at, LastActivity: at.Add(time.Millisecond),
		Status: claim.Active, Fence: 7, Rev: 1, Tenure: "t", Expires: at.Add(time.Second),
	}
	if err := claims.Put(t.Context(), row, claim.Row{}); err != nil {
		t.Fatal(err)
	}
	want := item{
		"projectKey": s("a#b"), "containerId": s("c1"), "claimedAt": n("1760000000123"), "lastActivity": n("1760000000124"),
		"status": s("active"), "ttl": n("1760000001"), "fence": n("7"), "rev": n("1"), "tenure": s("t"),
	}
	unset := cmpopts.IgnoreUnexported(types.AttributeValueMemberS{}, types.AttributeValueMemberN{})
	if d := cmp.Diff(want, r.get("a#b"), unset); d != "" {
		t.Fatalf("item (-want +got):\n%s", d)
	}
	more := r.get("a#b")
	more["sessionId"] = s("the orchestrator's own")
	r.put(more)
	released := row
	released.ContainerID, released.Status, released.Rev = "", claim.Released, 2
	if err := claims.Put(t.Context(), released, row); err != nil {
		t.Fatal(err)
	}
	got := r.get("a#b")
	if _, ok := got["containerId"]; ok {
		t.Error("a released row names a container")
	}
	if got["sessionId"] == nil {
		t.Error("a renewal took what another had added to the row")
	}
}

// TestTheIndexListsWhatSomebodyHas, and nothing else: no released row, no record.
func TestTheIndexListsWhatSomebodyHas(t *testing.T) {
	r, tables := open(t)
	fence := take(t, tables.Claims(), "a#b")
	take(t, tables.Claims(), "c#d")
	row, err := tables.Claims().Get(t.Context(), "c#d")
	if err != nil {
		t.Fatal(err)
	}
	released := row
	released.ContainerID, released.Status = "", claim.Released
	released.Rev++
	if err := tables.Claims().Put(t.Context(), released, row); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"cmd#a#b#1", "bucket#x"} {
		if err := tables.Journal().Put(t.Context(), journal.Record{Key: key, Expires: time.Now().Add(time.Hour)}, fence); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"a#b"}, r.indexed()); d != "" {
		t.Fatalf("index (-want +got):\n%s", d)
	}
}

// TestARecordIsNoClaim: ids may be such that a project's key looks like a
// record's, and the claim on a bucket has the name of the bucket's record.
func TestARecordIsNoClaim(t *testing.T) {
	_, tables := open(t)
	for _, key := range []string{"bucket#edit.amelia.webordinary.com", "cmd#x", "journal#x"} {
		fence := take(t, tables.Claims(), key)
		if _, err := tables.Journal().Get(t.Context(), key); !errors.Is(err, journal.ErrNotFound) {
			t.Fatalf("a claim was read as a record: %v", err)
		}
		if err := tables.Journal().Put(t.Context(), journal.Record{Key: key, Expires: time.Now().Add(time.Hour)}, fence); err != nil {
			t.Fatal(err)
		}
		if row, err := tables.Claims().Get(t.Context(), key); err != nil || row.Fence != fence.Number || row.ContainerID == "" {
			t.Fatalf("claim after a record of its name: %+v, %v", row, err)
		}
	}
}

// TestLiveOverPages: rows too large for one answer are all listed.
func TestLiveOverPages(t *testing.T) {
	r, tables := open(t)
	filler := &types.AttributeValueMemberB{Value: make([]byte, 300_000)}
	for i := range 9 {
		r.put(item{"projectKey": s(fmt.Sprintf("a#%d", i)), "containerId": s("old"), "filler": filler})
	}
	rows, err := tables.Claims().Live(t.Context())
	if err != nil || len(rows) != 9 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
}

// TestLiveOverAnIndexOfKeys: infrastructure may have made the index as small as
// can be.
func TestLiveOverAnIndexOfKeys(t *testing.T) {
	c := client(t, nil)
	config := ownership()
	_, err := c.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &config.Ownership, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("projectKey"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("containerId"), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("projectKey"), KeyType: types.KeyTypeHash}},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String("containerId-index"), Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
			KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("containerId"), KeyType: types.KeyTypeHash}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	claims := create(t, c, config).Claims()
	take(t, claims, "a#b")
	want, err := claims.Get(t.Context(), "a#b")
	if err != nil {
		t.Fatal(err)
	}
	got, err := claims.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]claim.Row{want}, got); d != "" {
		t.Fatalf("live (-want +got):\n%s", d)
	}
}

// TestCreate: twice, by several workers at once, and expiry is on.
func TestCreate(t *testing.T) {
	c := client(t, nil)
	config := ownership()
	config.Journal = "journal-" + crand.Text()
	done := make(chan error)
	for range 4 {
		go func() { done <- table.New(c, config).Create(t.Context()) }()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	create(t, c, config)
	for _, name := range []string{config.Ownership, config.Journal} {
		d, err := c.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &name})
		if err != nil || d.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled || aws.ToString(d.TimeToLiveDescription.AttributeName) != "ttl" {
			t.Errorf("expiry of %s: %+v, %v", name, d, err)
		}
	}
}

// TestSizes: what cannot be made smaller still fits, what can is stored smaller,
// and a short record can be read by a person.
func TestSizes(t *testing.T) {
	r, tables := open(t)
	fence := take(t, tables.Claims(), "a#b")
	noise := make([]byte, 350_000)
	if _, err := crand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		body    []byte
		atMost  int
		encoded bool
	}{
		"empty":        {nil, 0, false},
		"short":        {[]byte(`{"a":1}`), 7, false},
		"noise":        {noise, len(noise), false},
		"two answers":  {bytes.Repeat([]byte(`{"filesChanged":["src/pages/index.astro"]}`), 530_000/42), 100_000, true},
		"just too few": {bytes.Repeat([]byte("x"), 2047), 2047, false},
	} {
		t.Run(name, func(t *testing.T) {
			rec := journal.Record{Key: "cmd#a#b#" + name, Body: tt.body, Expires: time.Now().Add(time.Hour)}
			if err := tables.Journal().Put(t.Context(), rec, fence); err != nil {
				t.Fatal(err)
			}
			got, err := tables.Journal().Get(t.Context(), rec.Key)
			if err != nil || !bytes.Equal(got.Body, tt.body) {
				t.Fatalf("%d bytes, %v; want %d", len(got.Body), err, len(tt.body))
			}
			stored := r.get(rec.Key)
			if n := len(stored["body"].(*types.AttributeValueMemberB).Value); n > tt.atMost || (stored["encoding"] != nil) != tt.encoded {
				t.Fatalf("%d bytes stored, encoding %v", n, stored["encoding"])
			}
		})
	}
}

// TestRecordsThatAreNotOurs are errors, not answers.
func TestRecordsThatAreNotOurs(t *testing.T) {
	r, tables := open(t)
	later := n(fmt.Sprint(time.Now().Add(time.Hour).Unix()))
	body := &types.AttributeValueMemberB{Value: []byte("x")}
	for name, i := range map[string]item{
		"no body":          {"ttl": later},
		"unknown encoding": {"ttl": later, "body": body, "encoding": s("zstd")},
		"no gzip":          {"ttl": later, "body": body, "encoding": s("gzip")},
	} {
		i["projectKey"] = s("cmd#a#b#1")
		r.put(i)
		if _, err := tables.Journal().Get(t.Context(), "cmd#a#b#1"); err == nil || errors.Is(err, journal.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
