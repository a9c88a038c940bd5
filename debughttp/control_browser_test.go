//go:build cgo

package debughttp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A real browser sends the form of the page with what it must bring, and that of a
// page elsewhere without, though that one knows the token.
func TestBrowserSendsForms(t *testing.T) {
	browser := chromium(t)
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	mux := http.NewServeMux()
	h := debughttp.Handler(tr, debughttp.Control())
	mux.Handle("/debug/leakguard/", h)
	// Stands for the operator, for the page itself has no script to press a button.
	const sends = `<!DOCTYPE html><title>sends</title><form method="post" action="%s/debug/leakguard/control">
<input name="token" value="%s"><input name="do" value="set"><input name="pool" value="db">
<input name="was.mode" value="enforce"><input name="set.mode" value="observe"></form><script>
(async () => { %s; document.forms[0].submit() })()</script>`
	const visits = `await fetch("/debug/leakguard/control")`
	token := newOperator(t, h).token
	mux.HandleFunc("/operator", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, sends, "", token, visits) // the visit brings the cookie
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, fmt.Sprintf(sends, server.URL, token, ""))
	}))
	defer elsewhere.Close()
	dom, _ := browse(t, browser, elsewhere.URL, "--dump-dom")
	wants(t, dom, "this form comes from another origin")
	if p.Mode() != tracker.Enforce {
		t.Errorf("mode %v", p.Mode())
	}

	dom, console := browse(t, browser, server.URL+"/operator", "--dump-dom")
	wants(t, dom, "Done: changed: pool db.", `value="observe"`)
	if p.Mode() != tracker.Observe || console != "" {
		t.Errorf("mode %v, console %s", p.Mode(), console)
	}
}
