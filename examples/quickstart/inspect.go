package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// inspect shows an existing database, abandons a slow reader and shows how it
// is reaped.
func inspect(out io.Writer, file string) error {
	dsn, changed, err := readOnly(file)
	if err != nil {
		return err
	}
	w := newWatch()
	defer w.cancel()
	db, err := sql.Open("sqlite-leakguard", with(dsn, "_leakguard_leak_after=300ms", "_leakguard_check_interval=100ms"))
	if err != nil {
		return use("%v", err)
	}
	defer db.Close()
	ctx := context.Background()
	tables, err := listTables(ctx, db)
	if err != nil {
		return use("cannot read %s: %v", file, err)
	}
	largest, filled := printTables(out, file, tables)

	rows, p, err := abandonReader(ctx, db, largest, filled)
	if err != nil {
		return use("cannot read %s: %v", file, err)
	}
	fmt.Fprintf(out, "\nA slow reader of %q is not closed:\n\n", largest)
	fmt.Fprintf(out, "  planted  %v  %s\n", p.site, p.kind)
	w.until([]plant{p})
	if t := w.of(p); t != nil {
		fmt.Fprintf(out, "  found    %s  %s: %s, %s\n", t.from, t.leak.Kind, t.leak.Reason, outcome(p, t))
	}
	if wrong := w.check(p, []plant{p}); wrong != "" {
		return errors.New(wrong)
	}
	more := rows.Next()
	fmt.Fprintf(out, "\nThe reader goes on too late:\n  Next  %v\n  Err   %v\n\n", more, rows.Err())
	if more || !errors.Is(rows.Err(), leakguard.ErrReaped) {
		return errors.New("the reader should have failed with ErrReaped: a short result must not look complete")
	}
	rows.Close()
	if _, err := tracker.Default().WriteTo(out); err != nil {
		return err
	}
	if changed != nil && changed() {
		fmt.Fprintln(out, "\nThe file was written to meanwhile, so what was read of it may not fit together: run it again.")
	}
	return nil
}

// readOnly returns the DSN that reads a file and leaves nothing behind. If that
// rests on nobody writing meanwhile, changed tells whether somebody did.
//
// A database in WAL mode that nobody has open has no WAL file. Opening it,
// even with mode=ro, would create one and leave it there, so it is opened as
// immutable: SQLite then looks for no WAL and takes no lock. If there is a WAL
// file, its newest rows are in there and other processes may be at work, so
// the ordinary way is taken.
func readOnly(file string) (dsn string, changed func() bool, err error) {
	before, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, use("-db: there is no file %q", file)
	case err != nil:
		return "", nil, use("-db: %v", err)
	case !before.Mode().IsRegular():
		return "", nil, use("-db: %s is not a file", file)
	}
	wal, err := header(file)
	if err != nil {
		return "", nil, err
	}
	path, err := filepath.EvalSymlinks(file) // the WAL lies beside the real file
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", nil, use("-db: %v", err)
	}
	dsn = "file:" + uriPath(path) + "?mode=ro"
	hasWAL := func() bool { _, err := os.Stat(path + "-wal"); return err == nil }
	if !wal || hasWAL() {
		return dsn, nil, nil
	}
	return dsn + "&immutable=1", func() bool {
		after, err := os.Stat(path)
		return err != nil || after.ModTime() != before.ModTime() || after.Size() != before.Size() || hasWAL()
	}, nil
}

// header reads from the file's first bytes whether it is in WAL mode. See
// https://www.sqlite.org/fileformat.html#the_database_header.
func header(file string) (wal bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, use("-db: %v", err)
	}
	defer f.Close()
	var head [100]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || !strings.HasPrefix(string(head[:]), "SQLite format 3\x00") {
		return false, use("-db: %s is not a SQLite database", file)
	}
	return head[18] == 2 || head[19] == 2, nil
}

// uriPath escapes a path for a file: URI.
func uriPath(path string) string {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	return (&url.URL{Path: path}).EscapedPath()
}

// table is one table and its row count, or why that cannot be had.
type table struct {
	name string
	rows int64
	err  error
}

func listTables(ctx context.Context, db *sql.DB) ([]table, error) {
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []table
	for rows.Next() {
		var t table
		if err := rows.Scan(&t.name); err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range tables {
		t := &tables[i]
		t.err = db.QueryRowContext(ctx, `SELECT count(*) FROM `+quoted(t.name)).Scan(&t.rows)
	}
	return tables, nil
}

// printTables returns the table with the most rows, and whether it has any.
func printTables(out io.Writer, file string, tables []table) (largest string, filled bool) {
	largest = "sqlite_schema"
	fmt.Fprintf(out, "%s has %d tables:\n\n", file, len(tables))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	most := int64(-1)
	for _, t := range tables {
		name := t.name
		if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			name = strconv.Quote(name)
		}
		if t.err != nil { // a virtual table whose module this program lacks
			fmt.Fprintf(w, "  %s\t%v\n", name, t.err)
			continue
		}
		fmt.Fprintf(w, "  %s\t%d rows\n", name, t.rows)
		if t.rows > most {
			largest, most = t.name, t.rows
		}
	}
	w.Flush()
	return largest, most > 0
}

// abandonReader reads one row, if there is one, and stops.
func abandonReader(ctx context.Context, db *sql.DB, name string, filled bool) (*sql.Rows, plant, error) {
	p := plant{what: "abandonReader", kind: tracker.KindRows, undone: "closed"}
	query := `SELECT * FROM ` + quoted(name)
	p.site = nextLine()
	rows, err := db.QueryContext(ctx, query) // forgotten: reader
	if err != nil {
		return nil, p, err
	}
	if filled { // at the end of the rows, Next would close them
		rows.Next()
	}
	return rows, p, nil
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
