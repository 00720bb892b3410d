// Ask a ClickHouse over HTTP the way Grafana's data source does, and make of each answer the frames that it would make.
//
// Standard input has a question a line, {"title", "format", "sql"}; standard output a line for each, {"title", "error",
// "fields"}. Connection, frames and the turn from long to wide are the libraries that the data source is made of. The
// data source's own converters for NULL and for arrays of maps are stood in for by those below.
package main

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/data/sqlutil"
)

type question struct {
	Title  string `json:"title"`
	Format int    `json:"format"`
	SQL    string `json:"sql"`
}

type answer struct {
	Title  string   `json:"title"`
	Error  string   `json:"error"`
	Fields []string `json:"fields"`
}

const timeSeries = 0

func main() {
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{os.Args[1]},
		Auth:        clickhouse.Auth{Database: "spanwise", Username: "default"},
		Protocol:    clickhouse.HTTP,
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
		DialTimeout: 10 * time.Second,
		ReadTimeout: 60 * time.Second,
	})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one question
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			panic(err)
		}
		found := answer{Title: one.Title}
		frame, err := ask(db, one)
		if err != nil {
			found.Error = err.Error()
		} else {
			for _, field := range frame.Fields {
				found.Fields = append(found.Fields, fmt.Sprintf("%s{%s} %s", field.Name, field.Labels, field.Type()))
			}
		}
		line, err := json.Marshal(found)
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	}
}

func ask(db *sql.DB, one question) (*data.Frame, error) {
	rows, err := db.Query(one.SQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	frame, err := sqlutil.FrameFromRows(rows, -1, converters()...)
	if err != nil || one.Format != timeSeries {
		return frame, err
	}
	switch frame.TimeSeriesSchema().Type {
	case data.TimeSeriesTypeLong:
		return data.LongToWide(frame, &data.FillMissing{Mode: data.FillModeNull})
	case data.TimeSeriesTypeWide:
		return frame, nil
	default:
		return nil, fmt.Errorf("not a time series")
	}
}

func converters() []sqlutil.Converter {
	return []sqlutil.Converter{
		nullable[float64]("Nullable(Float64)", data.FieldTypeNullableFloat64),
		nullable[uint64]("Nullable(UInt64)", data.FieldTypeNullableUint64),
		{
			Name:          "map",
			InputTypeName: "Array(Map(String, String))",
			InputScanType: reflect.TypeOf([]map[string]string{}),
			FrameConverter: sqlutil.FrameConverter{
				FieldType:     data.FieldTypeString,
				ConverterFunc: func(in any) (any, error) { return fmt.Sprint(in), nil },
			},
		},
	}
}

func nullable[T any](name string, kind data.FieldType) sqlutil.Converter {
	var none *T
	return sqlutil.Converter{
		Name:          name,
		InputTypeName: name,
		InputScanType: reflect.TypeOf(&none),
		FrameConverter: sqlutil.FrameConverter{
			FieldType: kind,
			ConverterFunc: func(in any) (any, error) {
				if value, ok := in.(**T); ok {
					return *value, nil
				}
				return in.(*T), nil
			},
		},
	}
}
