// Webapp is a small notes service on sqlite-leakguard, with one leak planted
// behind a URL, that any OpenTelemetry backend and Prometheus can watch.
//
//	go run .
//	curl -d 'text=buy milk' localhost:8080/notes
//	curl -d $'one\n\ntwo' localhost:8080/import    # forgets a transaction
//	curl localhost:8080/metrics | grep sqlite_leakguard
//
// http://localhost:8080/debug/leakguard/ shows what is held now. It is for those
// who run the service: do not offer it to the world.
//
// With OTEL_EXPORTER_OTLP_ENDPOINT set, metrics, events and traces also go
// there, as the other standard OTEL_ variables say.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	_ "github.com/sqlite-leakguard/sqlite-leakguard/otel"
)

// defaultDSN has short limits, so that the planted leak shows within a minute.
const defaultDSN = "file:notes.db?_journal_mode=WAL&_leakguard_name=notes" +
	"&_leakguard_leak_after=10s&_leakguard_check_interval=5s"

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	dsn := flag.String("db", defaultDSN, "database, as go-sqlite3 and the guard take it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *dsn); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr, dsn string) (err error) {
	telemetry, err := startTelemetry(ctx)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	defer func() { err = errors.Join(err, telemetry.shutdown()) }()

	db, err := sql.Open("sqlite-leakguard", dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(8)
	if _, err := leakguard.Attach(db); err != nil { // capacity and waits; db.Close ends it
		return err
	}
	notes, err := openNotes(ctx, db)
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	log.Printf("http://%s", listener.Addr())
	server := &http.Server{Handler: routes(notes, telemetry), ReadHeaderTimeout: 5 * time.Second}
	ended := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(bounded)
	})
	defer ended()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(n *notes, t *telemetry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", n.list)
	mux.HandleFunc("POST /notes", n.add)
	mux.HandleFunc("POST /import", n.importLines)
	mux.Handle("GET /metrics", t.metrics)
	mux.Handle("/debug/leakguard/", debughttp.Handler(nil))
	return t.traced(mux)
}
