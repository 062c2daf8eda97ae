package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// TestBadInput is an operator who gets everything wrong once.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "3", "--units", "1", "--hosts", "1", "--medium-size", "64MiB")
	c.ok("host", "add", "a", "--initiator", otherIQN)
	c.give("v", "8MiB", "a")
	index := c.index()
	for _, r := range []struct {
		code  int
		words []string
		args  []string
	}{
		{2, []string{"0", "80MiB"}, []string{"volume", "create", "x", "--size", "0"}},
		{2, []string{"-5"}, []string{"volume", "create", "x", "--size", "-5"}},
		{2, []string{"-8388608", "not positive"}, []string{"volume", "create", "x", "--size", "-8MiB"}},
		{2, []string{"1000", "512"}, []string{"volume", "create", "x", "--size", "1000"}},
		{2, []string{"big"}, []string{"volume", "create", "x", "--size", "big"}},
		{2, nil, []string{"volume", "create", "x", "--size", "99999999999999999999999"}},
		{2, []string{"size"}, []string{"volume", "create", "x"}},
		{2, []string{"bogus"}, []string{"volume", "create", "x", "--size", "8MiB", "--bogus"}},
		{2, []string{"NAME"}, []string{"volume", "create", "--size", "8MiB"}},
		{2, []string{"frob"}, []string{"volume", "frob"}},
		{2, []string{"frob"}, []string{"frob"}},
		{2, []string{"empty"}, []string{"volume", "create", "", "--size", "8MiB"}},
		{2, []string{"300 characters"}, []string{"volume", "create", strings.Repeat("a", 300), "--size", "8MiB"}},
		{2, []string{"a b"}, []string{"volume", "create", "a b", "--size", "8MiB"}},
		{2, []string{"UTF-8"}, []string{"volume", "create", "\xff\xfe", "--size", "8MiB"}},
		{2, nil, []string{"volume", "create", "x", "--size", "8MiB", "--block-size", "1000"}},
		{2, nil, []string{"volume", "list", "-o", "xml"}},
		{2, nil, []string{"host", "add", "x", "--initiator", "not an iqn"}},
		{2, nil, []string{"host", "add", "x"}},
		{2, nil, []string{"host", "add", "x", "--initiator", otherIQN + "x", "--allow-from", "10.0.0.0/99"}},
		{2, nil, []string{"host", "add", strings.Repeat("h", 300), "--initiator", otherIQN + "x"}},
		{2, nil, []string{"join-token", "create", "x", "--role", "emperor"}},
		{4, []string{"room", "unit-1: full"}, []string{"volume", "create", "x", "--size", "100TiB"}},
		{4, []string{`"v"`, "another name"}, []string{"volume", "create", "v", "--size", "8MiB"}},
		{4, []string{"v", "unassign"}, []string{"volume", "delete", "v"}},
		{4, []string{"a"}, []string{"host", "add", "a", "--initiator", otherIQN + "y"}},
		{4, []string{otherIQN}, []string{"host", "add", "y", "--initiator", otherIQN}},
		{4, []string{"v"}, []string{"volume", "assign", "v", "--host", "host-1"}},
		{3, []string{"nobody", "host add"}, []string{"volume", "create", "x", "--size", "8MiB", "--host", "nobody"}},
		{3, []string{"nope"}, []string{"volume", "show", "nope"}},
		{3, []string{"nope"}, []string{"volume", "delete", "nope"}},
		{3, []string{"nope"}, []string{"volume", "assign", "nope", "--host", "a"}},
		{3, []string{"nope"}, []string{"volume", "url", "nope", "--host", "a"}},
		{3, []string{"nope"}, []string{"unit", "show", "nope"}},
		{3, []string{"nope"}, []string{"host", "show", "nope"}},
		{3, []string{"nope"}, []string{"unit", "approve", "nope"}},
	} {
		c.refused(r.code, r.words, r.args...)
	}
	vols, err := c.Volumes(t.Context())
	if err != nil || len(vols) != 1 || vols["v"].State != "Ready" {
		t.Errorf("after all that there are the volumes %+v (%v), want v alone", vols, err)
	}
	if now := c.index(); now > index+10 {
		t.Errorf("what was refused filled the log: index %d, was %d", now, index)
	}
	t.Run("credentials", func(t *testing.T) { badCredentials(t, c) })
	t.Run("request ids", func(t *testing.T) { requestIDs(t, c) })
	t.Run("stations down", func(t *testing.T) { stationsDown(t, c) })
}

// index is how far the cluster's log has come.
func (c *cluster) index() int {
	c.t.Helper()
	var p struct {
		Index int `json:"index,string"`
	}
	if err := c.CLI(c.t.Context(), "pool", "show", "-o", "json").JSON(&p); err != nil {
		c.t.Fatal(err)
	}
	return p.Index
}

// badCredentials: who shows the wrong thing gets nothing, and is told which thing.
func badCredentials(t *testing.T, c *cluster) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir + "/" + name
	}
	admin, err := os.ReadFile(c.Access.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	// The last character of a token is part of its secret.
	forged := []byte(strings.TrimSpace(string(admin)))
	forged[len(forged)-1] ^= 1
	secret := c.ok("token", "create", "look", "--role", "viewer", "-o", "json")
	var viewer struct {
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal([]byte(secret), &viewer); err != nil || viewer.Secret == "" {
		t.Fatalf("token create printed %q: %v", secret, err)
	}
	if r := c.CLI(t.Context(), "volume", "list", "--token-file", file("viewer", viewer.Secret)); r.Code != 0 {
		t.Errorf("a viewer may look: %v", r.Err())
	}
	checkRefusal(t, c.CLI(t.Context(), "volume", "create", "x", "--size", "8MiB", "--token-file", file("viewer", viewer.Secret)), 4, "viewer")
	checkRefusal(t, c.CLI(t.Context(), "volume", "credentials", "v", "--host", "a", "--token-file", file("viewer", viewer.Secret)), 4)
	checkRefusal(t, c.CLI(t.Context(), "volume", "list", "--token-file", file("forged", string(forged))), 4, "token")
	checkRefusal(t, c.CLI(t.Context(), "volume", "list", "--token-file", file("text", "hello")), 4, "token")
	checkRefusal(t, c.CLI(t.Context(), "volume", "list", "--token-file", dir+"/none"), 2, "token-file", dir+"/none")
	checkRefusal(t, c.CLI(t.Context(), "volume", "list", "--ca-file", file("ca", "hello")), 2, "CA file")
	checkRefusal(t, c.CLI(t.Context(), "volume", "list", "--endpoint", "here"), 2, "host:port")
	r := lab.Run(t.Context(), program, nil, "volume", "list")
	checkRefusal(t, r, 2, "SANDBAR_ENDPOINT")
}

// post calls the API as curl does.
func (c *cluster) post(endpoint, method, body string) (status int, answer string) {
	c.t.Helper()
	ca, err := os.ReadFile(c.Access.CAFile)
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := os.ReadFile(c.Access.TokenFile)
	if err != nil {
		c.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		c.t.Fatal("the CA file has no certificate")
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "https://"+endpoint+"/sandbar.v1."+method, bytes.NewBufferString(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// requestIDs: a retry changes nothing, at whatever station; another request of the same id is refused.
func requestIDs(t *testing.T, c *cluster) {
	const create = "VolumeService/CreateVolume"
	var first string
	for _, ep := range c.Access.Endpoints {
		status, answer := c.post(ep, create, `{"requestId":"r-1","name":"once","sizeBytes":"8388608"}`)
		var got struct {
			Volume struct {
				ID string `json:"id"`
			} `json:"volume"`
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || status != http.StatusOK || got.Volume.ID == "" {
			t.Fatalf("create at %s: %d %s", ep, status, answer)
		}
		if first == "" {
			first = got.Volume.ID
		}
		if got.Volume.ID != first {
			t.Errorf("a retry at %s made volume %s, the first try %s", ep, got.Volume.ID, first)
		}
	}
	status, answer := c.post(c.Access.Endpoints[1], create, `{"requestId":"r-1","name":"twice","sizeBytes":"8388608"}`)
	if status == http.StatusOK || !strings.Contains(answer, "r-1") || !strings.Contains(answer, "request id") {
		t.Errorf("the id again with other content: %d %s", status, answer)
	}
	vols, err := c.Volumes(t.Context())
	if _, there := vols["twice"]; err != nil || there || vols["once"].ID != first {
		t.Errorf("the volumes: %v, %v", vols, err)
	}
	for _, body := range []string{`{`, `{"nonsense":1}`, `{"name":5}`, `[]`, `{"name":"n","sizeBytes":"-1"}`, strings.Repeat("x", 8<<20)} {
		status, answer := c.post(c.Access.Endpoints[0], create, body)
		if status < 400 || status == http.StatusInternalServerError {
			t.Errorf("body %.30q: %d %.200s", body, status, answer)
		}
	}
	c.ok("volume", "delete", "once", "--wait")
}

// stationsDown: the command line says so in bounded time, whether all or a majority are away.
func stationsDown(t *testing.T, c *cluster) {
	stations := c.Of("station")
	quick := func(what string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		r := c.CLI(ctx, append(args, "--timeout", "3s")...)
		checkRefusal(t, r, 5)
		if r.Spent > 15*time.Second {
			t.Errorf("%s: %s took %v", what, r.Command, r.Spent)
		}
	}
	c.kill(stations[0])
	c.kill(stations[1])
	quick("no majority", "volume", "list")
	quick("no majority", "volume", "create", "late", "--size", "8MiB")
	c.kill(stations[2])
	quick("no station", "volume", "list")
	quick("no station", "volume", "create", "later", "--size", "8MiB")
	for _, s := range stations {
		c.restart(s)
	}
	c.whole()
	vols, err := c.Volumes(t.Context())
	if err != nil || vols["v"].State != "Ready" {
		t.Errorf("after the return: %+v, %v", vols, err)
	}
	// What was unavailable was not refused: it may have happened, but then wholly.
	for name := range vols {
		if name != "v" && name != "late" {
			t.Errorf("a volume %q from nowhere", name)
		}
	}
}
