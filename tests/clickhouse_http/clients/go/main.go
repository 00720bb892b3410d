// What an application, and Grafana's data source, do with clickhouse-go over HTTP; each result under the name that the
// tests know it by.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/shopspring/decimal"
)

var address = os.Args[1]

func options(method clickhouse.CompressionMethod) *clickhouse.Options {
	return &clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{address},
		Auth:        clickhouse.Auth{Database: "default", Username: "default"},
		Compression: &clickhouse.Compression{Method: method},
		DialTimeout: 10 * time.Second,
		ReadTimeout: 30 * time.Second,
	}
}

// Everything that a column of ours may be, and many rows, so that blocks are cut everywhere.
const every = `SELECT number AS n, toString(number) AS s, toLowCardinality(toString(number % 3)) AS l,
	if(number % 2 = 0, NULL, number) AS o, [toString(number), 'x'] AS a, map('k', number) AS m,
	toDecimal64(number, 9) AS d, toDateTime64(number, 9, 'UTC') AS t, (number, 'y') AS p,
	CAST(number % 2 + 1, 'Enum8(''a)'' = 1, ''b,'' = 2)') AS e, arrayMap(x -> toLowCardinality(toString(x)), range(number % 3)) AS r
	FROM numbers(20000) SETTINGS max_block_size = 6000`

func native(method clickhouse.CompressionMethod) (any, error) {
	ctx := context.Background()
	conn, err := clickhouse.Open(options(method))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.Ping(ctx); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, every)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	count, sum := 0, uint64(0)
	for rows.Next() {
		var (
			n    uint64
			s, l string
			o    *uint64
			a, r []string
			m    map[string]uint64
			d    decimal.Decimal
			t    time.Time
			p    []any
			e    string
		)
		if err := rows.Scan(&n, &s, &l, &o, &a, &m, &d, &t, &p, &e, &r); err != nil {
			return nil, err
		}
		if s != fmt.Sprint(n) || l != fmt.Sprint(n%3) || a[0] != s || m["k"] != n || d.IntPart() != int64(n) || t.Unix() != int64(n) || len(r) != int(n%3) {
			return nil, fmt.Errorf("row %d is wrong", n)
		}
		count, sum = count+1, sum+n
	}
	return map[string]any{"rows": count, "sum": sum}, rows.Err()
}

// As the data source opens it: database/sql, gzip, settings of the user, a place for the row limit.
func grafana() (any, error) {
	opts := options(clickhouse.CompressionGZIP)
	opts.Settings = clickhouse.Settings{"limit": 2, "max_execution_time": 20}
	opts.ClientInfo = clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{"grafana", "12"}, {"clickhouse-datasource", "4"}}}
	db := clickhouse.OpenDB(opts)
	defer db.Close()
	ctx := clickhouse.Context(context.Background(), clickhouse.WithClientInfo(clickhouse.ClientInfo{Comment: []string{"grafana_panel:1"}}))
	if err := db.PingContext(ctx); err != nil {
		return nil, err
	}
	texts := func(query string) ([]string, error) {
		rows, err := db.QueryContext(ctx, query)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		found := []string{}
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return nil, err
			}
			found = append(found, text)
		}
		return found, rows.Err()
	}
	found := map[string]any{}
	for name, query := range map[string]string{
		"limited":  "SELECT DISTINCT name FROM spans ORDER BY name SETTINGS max_execution_time=10",
		"database": "SELECT currentDatabase()",
		"tables":   "SELECT name FROM system.tables WHERE database = currentDatabase() AND name = 'spans'",
		"columns":  "SELECT name FROM system.columns WHERE (database, table) IN (('spanwise', 'spans')) AND name = 'tenant'",
	} {
		texts, err := texts(query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found[name] = texts
	}
	rows, err := db.QueryContext(ctx, `DESCRIBE TABLE "spanwise"."spans"`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	found["described"] = len(columns)
	return found, err
}

func parameters() (any, error) {
	conn, err := clickhouse.Open(options(clickhouse.CompressionNone))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx := clickhouse.Context(context.Background(), clickhouse.WithParameters(clickhouse.Parameters{"s": "it is", "n": "7"}))
	var (
		s string
		n uint8
	)
	err = conn.QueryRow(ctx, "SELECT {s:String}, {n:UInt8}").Scan(&s, &n)
	return []any{s, n}, err
}

func refused(method clickhouse.CompressionMethod, query string) (any, error) {
	conn, err := clickhouse.Open(options(method))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	rows, err := conn.Query(context.Background(), query)
	for err == nil {
		if !rows.Next() {
			err = rows.Err()
			break
		}
	}
	var exception *clickhouse.Exception
	if errors.As(err, &exception) {
		return exception.Code, nil
	}
	return nil, fmt.Errorf("not an exception of ClickHouse: %w", err)
}

func cancelled() (any, error) {
	db := clickhouse.OpenDB(options(clickhouse.CompressionGZIP))
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	ctx = clickhouse.Context(ctx, clickhouse.WithQueryID("cancelled-by-go"))
	var count uint64
	err := db.QueryRowContext(ctx, "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))").Scan(&count)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrNoRows) {
		return "cancelled", nil
	}
	return nil, err
}

func main() {
	found := map[string]any{}
	attempt := func(name string, work func() (any, error)) {
		result, err := work()
		if err != nil {
			result = map[string]any{"error": err.Error()}
		}
		found[name] = result
	}
	methods := map[string]clickhouse.CompressionMethod{
		"none": clickhouse.CompressionNone, "lz4": clickhouse.CompressionLZ4, "zstd": clickhouse.CompressionZSTD,
		"gzip": clickhouse.CompressionGZIP, "deflate": clickhouse.CompressionDeflate, "br": clickhouse.CompressionBrotli,
	}
	for name, method := range methods {
		attempt("native_"+name, func() (any, error) { return native(method) })
		attempt("late_"+name, func() (any, error) {
			return refused(method, "SELECT throwIf(number = 200000), toString(number) FROM numbers(300000)")
		})
	}
	attempt("syntax", func() (any, error) { return refused(clickhouse.CompressionLZ4, "SELEC 1") })
	attempt("insert", func() (any, error) {
		return refused(clickhouse.CompressionGZIP, "INSERT INTO spans (tenant) VALUES ('x')")
	})
	attempt("unsendable", func() (any, error) {
		return refused(clickhouse.CompressionNone, "SELECT sumState(number) FROM numbers(3)")
	})
	attempt("grafana", grafana)
	attempt("parameters", parameters)
	attempt("cancelled", cancelled)
	json.NewEncoder(os.Stdout).Encode(found)
}
