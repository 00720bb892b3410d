//! What Python sees, typed in `spanwise/_native.pyi`. All work is done with the GIL released.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, to_ffi};
use arrow_array::{Array, RecordBatch, StructArray};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyCapsule};

use crate::blocks::{self, Blocks};
use crate::decode::{self, Frame};
use crate::plan::Plan;
use crate::{inspect, json, split};

thread_local! {
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes where a panic of this library was, and prints nothing: its message may quote the payload.
fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            // paths of the standard library depend on the build
            let file = place.file().rsplit('/').next().unwrap_or_default();
            PANICKED_AT.set(format!("{file}:{}", place.line()));
        }
    }));
}

/// Runs `work`. A panic is a defect of ours, but no payload may end the program because of one.
fn guarded<T, E: ToString>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| format!("cannot {what}: {}", error.to_string())),
        Err(_) => {
            let place = PANICKED_AT.take();
            Err(format!("cannot {what}: defect in the native core at {place}"))
        }
    }
}

/// The same without the GIL.
fn detached<T: Send, E: ToString>(
    py: Python<'_>,
    what: &str,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(|| guarded(what, work)).map_err(PyValueError::new_err)
}

fn is_logs(signal: &str) -> PyResult<bool> {
    match signal {
        "traces" => Ok(false),
        "logs" => Ok(true),
        _ => Err(PyValueError::new_err("signal is neither 'traces' nor 'logs'")),
    }
}

/// A batch on its way to pyarrow, by the Arrow PyCapsule interface.
#[pyclass(frozen)]
struct Exported {
    batch: StructArray,
}

#[pymethods]
impl Exported {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // the interface allows to ignore the wish
        drop(requested_schema);
        let (array, schema): (FFI_ArrowArray, FFI_ArrowSchema) =
            to_ffi(&self.batch.to_data()).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok((
            PyCapsule::new_with_value(py, schema, c"arrow_schema")?,
            PyCapsule::new_with_value(py, array, c"arrow_array")?,
        ))
    }
}

fn to_pyarrow(py: Python<'_>, batch: RecordBatch) -> PyResult<Py<PyAny>> {
    let exported = Exported { batch: StructArray::from(batch) };
    Ok(py.import("pyarrow")?.call_method1("record_batch", (exported,))?.unbind())
}

#[pyclass(frozen, get_all)]
struct Inspection {
    items: usize,
    attributes: usize,
    rejects: Vec<(usize, String)>,
    rejected: usize,
    repaired: usize,
}

#[pyfunction(name = "inspect")]
#[pyo3(signature = (signal, body, *, items_max, attributes_max))]
fn inspect_request(
    py: Python<'_>,
    signal: &str,
    body: PyBackedBytes,
    items_max: usize,
    attributes_max: usize,
) -> PyResult<Inspection> {
    let logs = is_logs(signal)?;
    let found = detached(py, "read the request", || inspect::inspect(logs, &body, items_max, attributes_max))?;
    Ok(Inspection {
        items: found.items,
        attributes: found.attributes,
        rejects: found.rejects,
        rejected: found.rejected,
        repaired: found.repaired,
    })
}

type CutValue = (usize, String, usize, String);

#[pyfunction]
#[pyo3(signature = (body, *, span_bytes_max))]
fn cut_oversized<'py>(
    py: Python<'py>,
    body: Bound<'py, PyBytes>,
    span_bytes_max: usize,
) -> PyResult<(Bound<'py, PyBytes>, Vec<CutValue>)> {
    let bytes = PyBackedBytes::from(body.clone());
    match detached(py, "cut the request", || inspect::cut_oversized(&bytes, span_bytes_max))? {
        None => Ok((body, Vec::new())),
        Some((rewritten, cuts)) => Ok((PyBytes::new(py, &rewritten), cut_values(cuts))),
    }
}

fn cut_values(cuts: Vec<inspect::Cut>) -> Vec<CutValue> {
    cuts.into_iter().map(|cut| (cut.span, cut.key, cut.bytes, format!("{:032x}", cut.hash))).collect()
}

type Part = (u32, usize, Py<PyBytes>);

#[pyfunction(name = "split")]
#[pyo3(signature = (signal, body, *, partitions, bytes_max))]
fn split_request(
    py: Python<'_>,
    signal: &str,
    body: PyBackedBytes,
    partitions: u32,
    bytes_max: usize,
) -> PyResult<(Vec<Part>, Vec<CutValue>, Vec<usize>)> {
    let logs = is_logs(signal)?;
    let done = detached(py, "split the request", || split::split(logs, &body, partitions, bytes_max))?;
    let parts =
        done.parts.iter().map(|part| (part.partition, part.items, PyBytes::new(py, &part.body).unbind())).collect();
    Ok((parts, cut_values(done.cuts), done.too_large))
}

#[pyfunction]
fn partitions_of(trace_ids: Vec<PyBackedStr>, partitions: u32) -> Vec<u32> {
    trace_ids.iter().map(|id| split::partition_of(id.as_bytes(), partitions)).collect()
}

#[pyfunction]
fn json_to_protobuf<'py>(py: Python<'py>, signal: &str, body: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
    let logs = is_logs(signal)?;
    let request = detached(py, "read the request as OTLP/JSON", || json::to_protobuf(logs, &body))?;
    Ok(PyBytes::new(py, &request))
}

#[pyclass(frozen, get_all)]
struct Decoded {
    spans: Py<PyAny>,
    content: Py<PyAny>,
    log_events: Py<PyAny>,
    rejects: Vec<(usize, usize, String)>,
    rejected: usize,
    ignored_logs: usize,
}

#[pyclass(frozen)]
struct Decoder {
    plan: Plan,
}

#[pymethods]
impl Decoder {
    #[new]
    fn new(plan_json: &[u8]) -> PyResult<Self> {
        let plan = guarded("read the plan", || Plan::from_json(plan_json)).map_err(PyValueError::new_err)?;
        Ok(Self { plan })
    }

    fn decode(&self, py: Python<'_>, frames: Vec<(PyBackedStr, i64, PyBackedStr, PyBackedBytes)>) -> PyResult<Decoded> {
        let logs = frames.iter().map(|frame| is_logs(&frame.2)).collect::<PyResult<Vec<bool>>>()?;
        let decoded = detached(py, "decode", || {
            let frames: Vec<Frame<'_>> = frames
                .iter()
                .zip(logs)
                .map(|((tenant, received_unix_nano, _, body), logs)| Frame {
                    tenant,
                    received_unix_nano: *received_unix_nano,
                    logs,
                    body,
                })
                .collect();
            decode::decode(&self.plan, &frames)
        })?;
        Ok(Decoded {
            spans: to_pyarrow(py, decoded.spans)?,
            content: to_pyarrow(py, decoded.content)?,
            log_events: to_pyarrow(py, decoded.log_events)?,
            rejects: decoded.rejects.into_iter().map(|reject| (reject.frame, reject.item, reject.reason)).collect(),
            rejected: decoded.rejected,
            ignored_logs: decoded.ignored_logs,
        })
    }
}

#[pyclass]
struct NativeBlocks {
    blocks: Blocks,
}

#[pymethods]
impl NativeBlocks {
    #[new]
    fn new(revision: u64) -> Self {
        Self { blocks: Blocks::new(revision) }
    }

    fn feed<'py>(&mut self, py: Python<'py>, piece: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
        let out = detached(py, "write blocks for this client", || self.blocks.feed(&piece))?;
        Ok(PyBytes::new(py, &out))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let out = detached(py, "write blocks for this client", || self.blocks.finish())?;
        Ok(PyBytes::new(py, &out))
    }
}

#[pyfunction]
fn compressed_frames<'py>(py: Python<'py>, piece: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
    let out = detached(py, "compress", || Ok::<_, String>(blocks::compressed(&piece)))?;
    Ok(PyBytes::new(py, &out))
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    keep_panics_quiet();
    module.add_class::<Inspection>()?;
    module.add_class::<Decoded>()?;
    module.add_class::<Decoder>()?;
    module.add_class::<NativeBlocks>()?;
    module.add_function(wrap_pyfunction!(inspect_request, module)?)?;
    module.add_function(wrap_pyfunction!(cut_oversized, module)?)?;
    module.add_function(wrap_pyfunction!(json_to_protobuf, module)?)?;
    module.add_function(wrap_pyfunction!(split_request, module)?)?;
    module.add_function(wrap_pyfunction!(partitions_of, module)?)?;
    module.add_function(wrap_pyfunction!(compressed_frames, module)?)?;
    Ok(())
}
