//! The OpenAPI document of the exposed schema.
//!
//! Only for the server's own key. Called by `routes`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::error::RestError;
use super::request::accepted;
use super::schema::{Column, Function, Schema, Table, Volatility};

const KIND: &str = "application/openapi+json; charset=utf-8";

/// The answer at the root.
pub(super) fn answer(headers: &HeaderMap, schema: &Schema, url: &str) -> Result<Answer, RestError> {
    let kinds = accepted(headers);
    let known = ["*/*", "application/json", "application/openapi+json"];
    let taken = kinds.iter().any(|kind| {
        let main = kind.split(';').next().unwrap_or_default().trim();
        known.contains(&main)
    });
    if !taken {
        return Err(RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "PGRST107",
            format!("None of these media types are available: {}", kinds.join(", ")),
        ));
    }
    let mut answer = Answer::new(StatusCode::OK);
    answer
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(KIND));
    answer.body = document(schema, url).to_string();
    Ok(answer)
}

fn document(schema: &Schema, url: &str) -> Value {
    let (scheme, host) = url.split_once("://").unwrap_or(("http", url));
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for (name, table) in &schema.tables {
        paths.insert(format!("/{name}"), table_path(name, table));
        definitions.insert(name.clone(), definition(table));
    }
    for (name, overloads) in &schema.functions {
        if let Some(function) = overloads.first() {
            paths.insert(format!("/rpc/{name}"), function_path(name, function));
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "standard public schema", "description": "", "version": env!("CARGO_PKG_VERSION")},
        "host": host,
        "basePath": "/rest/v1/",
        "schemes": [scheme],
        "consumes": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "produces": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "paths": paths,
        "definitions": definitions,
    })
}

fn table_path(name: &str, table: &Table) -> Value {
    let answers = |status: &str| json!({status: {"description": "OK"}});
    let filters: Vec<Value> = table
        .columns
        .iter()
        .map(|column| json!({"name": column.name, "in": "query", "type": "string", "format": column.kind}))
        .collect();
    let body = json!({"name": name, "in": "body", "schema": {"$ref": format!("#/definitions/{name}")}});
    let with_body: Vec<Value> = filters.iter().cloned().chain([body.clone()]).collect();
    let mut path = Map::new();
    let mut add = |can: bool, method: &str, parameters: Value, status: &str| {
        if can {
            let what = json!({"tags": [name], "parameters": parameters, "responses": answers(status)});
            path.insert(method.to_owned(), what);
        }
    };
    add(true, "get", json!(filters), "200");
    add(table.insertable, "post", json!([body]), "201");
    add(table.updatable, "patch", json!(with_body), "204");
    add(table.deletable, "delete", json!(filters), "204");
    Value::Object(path)
}

fn definition(table: &Table) -> Value {
    let required: Vec<&str> = table
        .columns
        .iter()
        .filter(|column| !column.nullable && column.default.is_none())
        .map(|column| column.name.as_str())
        .collect();
    let properties: Map<String, Value> = table
        .columns
        .iter()
        .map(|column| (column.name.clone(), property(column, table)))
        .collect();
    json!({"type": "object", "required": required, "properties": properties})
}

fn property(column: &Column, table: &Table) -> Value {
    let mut property = json!({"format": column.kind});
    if let Some(kind) = kind(&column.kind) {
        property["type"] = json!(kind);
    }
    if table.key.contains(&column.name) {
        property["description"] = json!("Note:\nThis is a Primary Key.<pk/>");
    }
    property
}

/// The JSON type of an SQL type; none for JSON itself.
fn kind(sql: &str) -> Option<&'static str> {
    Some(match sql {
        "json" | "jsonb" => return None,
        "smallint" | "integer" | "bigint" => "integer",
        "boolean" => "boolean",
        array if array.ends_with("[]") => "array",
        number if number.starts_with("numeric") || matches!(number, "real" | "double precision") => "number",
        _ => "string",
    })
}

fn function_path(name: &str, function: &Function) -> Value {
    let properties: Map<String, Value> = function
        .arguments
        .iter()
        .map(|one| {
            let mut property = json!({"format": one.kind});
            if let Some(kind) = kind(&one.kind) {
                property["type"] = json!(kind);
            }
            (one.name.clone(), property)
        })
        .collect();
    let required: Vec<&str> = function
        .arguments
        .iter()
        .filter(|one| one.required)
        .map(|one| one.name.as_str())
        .collect();
    let tags = json!([format!("(rpc) {name}")]);
    let arguments = json!({"type": "object", "required": required, "properties": properties});
    let post = json!({
        "tags": tags,
        "parameters": [{"name": "args", "in": "body", "required": true, "schema": arguments}],
        "responses": {"200": {"description": "OK"}},
    });
    if function.volatility == Volatility::Volatile {
        return json!({"post": post});
    }
    let pairs: Vec<Value> = function
        .arguments
        .iter()
        .map(|one| json!({"name": one.name, "in": "query", "required": one.required, "type": "string"}))
        .collect();
    json!({"post": post, "get": {
        "tags": tags, "parameters": pairs, "responses": {"200": {"description": "OK"}},
    }})
}
