//! Refuses a change of the protocols that would break a client or a shim of an earlier release: what stands in
//! `proto/contract.txt` must stay as it is. Additions are added there with `UPDATE_CONTRACT=1 cargo test -p berth-wire`.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

/// One line for everything that is on the wire.
fn contract() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(berth_wire::DESCRIPTOR).expect("our own descriptor");
    let mut lines = BTreeSet::new();
    for file in &set.file {
        file.message_type
            .iter()
            .for_each(|m| message(file.package(), m, &mut lines));
        file.enum_type
            .iter()
            .for_each(|e| enumeration(file.package(), e, &mut lines));
        file.service.iter().for_each(|s| service(file.package(), s, &mut lines));
    }
    lines
}

fn message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional() => format!(" in {}", message.oneof_decl[index as usize].name()),
            _ => String::new(),
        };
        let label = match (field.label(), field.proto3_optional()) {
            (Label::Repeated, _) => "repeated ",
            (_, true) => "optional ",
            _ => "",
        };
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
            scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        };
        lines.insert(format!(
            "field {name}.{} = {} {label}{kind}{oneof}",
            field.name(),
            field.number()
        ));
    }
    message
        .nested_type
        .iter()
        .for_each(|nested| self::message(&name, nested, lines));
    message
        .enum_type
        .iter()
        .for_each(|nested| enumeration(&name, nested, lines));
}

fn enumeration(scope: &str, enumeration: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &enumeration.value {
        lines.insert(format!(
            "enum {scope}.{}.{} = {}",
            enumeration.name(),
            value.name(),
            value.number()
        ));
    }
}

fn service(scope: &str, service: &ServiceDescriptorProto, lines: &mut BTreeSet<String>) {
    for method in &service.method {
        let stream = |on: bool| if on { "stream " } else { "" };
        lines.insert(format!(
            "rpc {scope}.{}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}

#[test]
fn nothing_that_was_promised_has_changed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/contract.txt");
    let promised: BTreeSet<String> = std::fs::read_to_string(&path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let now = contract();
    let broken: Vec<_> = promised.difference(&now).collect();
    assert!(
        broken.is_empty(),
        "these would break clients or shims of earlier releases: {broken:#?}"
    );
    let added: Vec<_> = now.difference(&promised).collect();
    if std::env::var_os("UPDATE_CONTRACT").is_some() {
        let text: String = now.iter().flat_map(|line| [line, "\n"]).collect();
        std::fs::write(&path, text).expect("written");
        return;
    }
    assert!(
        added.is_empty(),
        "added, but not in {}: UPDATE_CONTRACT=1 adds them: {added:#?}",
        path.display()
    );
}
