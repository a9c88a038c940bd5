package debughttp_test

import (
	"encoding/json"
	"expvar"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The page of everything that is opened through the driver. Let it listen
// where only operators come.
func ExampleHandler() {
	mux := http.NewServeMux()
	mux.Handle("/debug/leakguard/", debughttp.Handler(nil, debughttp.Title("shop")))
	// go http.ListenAndServe("localhost:6060", mux)
}

// A program asks the page for its verdict.
func ExampleHandler_json() {
	server := httptest.NewServer(debughttp.Handler(tracker.New(tracker.Options{})))
	defer server.Close()

	r, err := http.Get(server.URL + "/?format=json")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Body.Close()
	var page struct {
		Verdict  string `json:"verdict"`
		Suspects []struct{ Kind, Site string }
	}
	if err := json.NewDecoder(r.Body).Decode(&page); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(page.Verdict, len(page.Suspects))
	// Output: nothing forgotten 0
}

func ExampleVar() {
	expvar.Publish("leakguard", debughttp.Var(nil))
	fmt.Println(expvar.Get("leakguard") != nil)
	// Output: true
}
