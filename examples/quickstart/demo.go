package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// demonstrate runs the shop and the mistakes. An empty dsn is a new file in a
// temporary folder.
func demonstrate(out io.Writer, dsn string) error {
	if dsn == "" {
		folder, err := os.MkdirTemp("", "leakguard-quickstart-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		dsn = "file:" + uriPath(filepath.Join(folder, "shop.db"))
	}
	dsn = with(dsn, "_journal_mode=WAL", "_foreign_keys=on", "_txlock=immediate")
	ctx := context.Background()

	// The shop runs under the default limits.
	db, err := open(with(dsn, "_busy_timeout=10000", "_leakguard_name=shop"))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := needFile(ctx, db); err != nil {
		return err
	}
	w := newWatch()
	defer w.cancel()
	if err := openShop(ctx, db); err != nil {
		return use("cannot create the shop's tables: %v", err)
	}
	start := time.Now()
	orders, err := trade(ctx, db)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "A shop: %d customers placed %d orders in %v, and the stock adds up.\nLeaks found: %d\n",
		customers, orders, time.Since(start).Round(time.Millisecond), w.others(nil))

	// What forgets runs in a pool of its own with short limits, so that nobody
	// has to wait for minutes.
	short := with(dsn, "_leakguard_name=hasty", "_leakguard_leak_after=300ms", "_leakguard_check_interval=100ms")
	hasty, err := open(short)
	if err != nil {
		return err
	}
	defer hasty.Close()
	tx, plants, err := forget(ctx, hasty)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nNow one of each kind is forgotten, with leak_after %v:\n\n", leakAfter(short))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range plants {
		fmt.Fprintf(table, "  planted\t%v\t%s\t%s\n", p.site, p.kind, p.what)
	}
	table.Flush()
	probe, err := open(with(dsn, "_busy_timeout=50", "_leakguard_name=probe"))
	if err != nil {
		return err
	}
	defer probe.Close()
	fmt.Fprintf(out, "\nMeanwhile:\n")
	since := time.Now()
	var blamed error
	if tryWrite(ctx, out, probe) != nil { // else the guard was faster
		blamed = printBlame(out, lastBlame(since), plants)
	}
	tryReset(ctx, out, probe)

	w.until(plants)
	fmt.Fprintf(out, "\nThe guard:\n\n")
	for _, p := range plants {
		if t := w.of(p); t != nil {
			fmt.Fprintf(table, "  found\t%s\t%s\t%s\t%s\n", t.from, t.leak.Kind, t.leak.Reason, outcome(p, t))
		}
	}
	table.Flush()
	if n := w.others(plants); n > 0 {
		fmt.Fprintf(out, "  and %d more that nobody planted: see the report\n", n)
	}

	fmt.Fprintf(out, "\nAfterwards:\n")
	commit := tx.Commit()
	fmt.Fprintf(out, "  late Commit         %v\n", commit)
	writes, resets := tryWrite(ctx, out, probe), tryReset(ctx, out, probe)
	fmt.Fprintln(out)
	if _, err := tracker.Default().WriteTo(out); err != nil {
		return err
	}
	if blamed != nil {
		return blamed
	}
	return verdict(out, w, plants, commit, writes, resets)
}

// lastBlame returns what the guard says of the last operation that was blocked,
// nil if none was. A program that wants to be told subscribes to the tracker;
// here its history will do.
func lastBlame(since time.Time) *tracker.Blame {
	var blame *tracker.Blame
	for _, e := range tracker.Default().History() {
		if e.Type == tracker.EventBlocked && !e.Time.Before(since) {
			blame = e.Blame
		}
	}
	return blame
}

// printBlame says who kept the writer waiting, which must be the forgotten
// transaction: it holds the write lock, the forgotten rows and the BEGIN by SQL
// text do not.
func printBlame(out io.Writer, blame *tracker.Blame, plants []plant) error {
	if blame == nil || len(blame.Holders) == 0 {
		return errors.New("the database was locked, and the guard did not say by whom")
	}
	h := blame.Holders[0]
	fmt.Fprintf(out, "  who locked it       %s: %s on %s (%s lock, open for %v)\n",
		h.Site(), h.Kind, h.ConnectionID, h.State, h.Age.Round(time.Millisecond))
	for _, p := range plants {
		if p.what == "forgetTx" && (h.Kind != p.kind || h.Site().String() != p.site.String()) {
			return fmt.Errorf("%v, planted at %v, locked the database, but the guard blamed the %s of %v", p, p.site, h.Kind, h.Site())
		}
	}
	return nil
}

// verdict is the exit code in words.
func verdict(out io.Writer, w *watch, plants []plant, commit, writes, resets error) error {
	for _, p := range plants {
		if wrong := w.check(p, plants); wrong != "" {
			return errors.New(wrong)
		}
	}
	switch {
	case !errors.Is(commit, leakguard.ErrReaped):
		return fmt.Errorf("the late Commit returned %v, not an error that says why", commit)
	case writes != nil:
		return fmt.Errorf("after reaping, a writer fails: %w", writes)
	case resets != nil:
		return fmt.Errorf("after reaping, the checkpoint fails: %w", resets)
	}
	fmt.Fprintf(out, "\nAll %d planted leaks were found at the right line.\n", len(plants))
	return nil
}

// forget plants one of each kind.
func forget(ctx context.Context, db *sql.DB) (tx *sql.Tx, plants []plant, err error) {
	for _, f := range []func(context.Context, *sql.DB) (plant, error){
		forgetRows,
		forgetConn,
		func(ctx context.Context, db *sql.DB) (p plant, err error) {
			p, tx, err = forgetTx(ctx, db)
			return p, err
		},
		// These two give their connection back, so whoever comes next may get it.
		forgetStatement,
		forgetRawBegin,
	} {
		p, err := f(ctx, db)
		if err != nil {
			return nil, nil, fmt.Errorf("%v: %w", p, err)
		}
		plants = append(plants, p)
	}
	return tx, plants, nil
}

// open opens a guarded pool. An error in a _leakguard key comes from here.
func open(dsn string) (*sql.DB, error) {
	cfg, err := leakguard.ParseDSN(dsn)
	if err != nil {
		return nil, use("%v", err)
	}
	if cfg.Mode != tracker.Enforce {
		return nil, use("the DSN sets _leakguard=%v: want enforce, or nothing is undone", cfg.Mode)
	}
	return sql.Open("sqlite-leakguard", dsn)
}

// leakAfter returns the limit that a DSN sets.
func leakAfter(dsn string) time.Duration {
	cfg, _ := leakguard.ParseDSN(dsn) // open has taken it
	return cfg.Policy.LeakAfter
}

// outcome says what became of a leak.
func outcome(p plant, t *told) string {
	switch {
	case t.last == tracker.EventReaped:
		return p.undone
	case p.undone == "":
		return "reported: it holds nothing but its place in the pool"
	}
	return "still " + t.last.String()
}

// tryWrite tries to write.
func tryWrite(ctx context.Context, out io.Writer, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `UPDATE shop_products SET stock = stock WHERE id = 1`)
	fmt.Fprintf(out, "  a writer            %s\n", either(err, "works"))
	return err
}

// tryReset tries to reset the WAL.
func tryReset(ctx context.Context, out io.Writer, db *sql.DB) error {
	var busy, frames, done int
	err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &done)
	if err == nil && busy != 0 {
		err = errors.New("busy=1: the WAL cannot be reset")
	}
	fmt.Fprintf(out, "  the WAL checkpoint  %s\n", either(err, "works (busy=0)"))
	return err
}

func either(err error, fine string) string {
	if err != nil {
		return err.Error()
	}
	return fine
}

// needFile refuses databases in memory: there is no WAL, and each connection
// may have one of its own.
func needFile(ctx context.Context, db *sql.DB) error {
	var file string
	err := db.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&file)
	if err != nil {
		return use("cannot open the database: %v", err)
	}
	if file == "" {
		return use("the DSN leads to a database in memory: a file is needed")
	}
	return nil
}

// with adds the parameters whose key the DSN does not have.
func with(dsn string, params ...string) string {
	for _, p := range params {
		key, _, _ := strings.Cut(p, "=")
		_, query, has := strings.Cut(dsn, "?")
		switch {
		case strings.Contains("&"+query, "&"+key+"="):
		case has:
			dsn += "&" + p
		default:
			dsn += "?" + p
		}
	}
	return dsn
}
