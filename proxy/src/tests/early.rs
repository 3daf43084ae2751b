//! Answers that come before their request is whole.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::mesh::{Mesh, read_until, within};

/// An upload that the application refuses at its head; its client reads only when it has sent everything, as many do.
async fn upload(mesh: &Mesh, length: usize) -> String {
    let client = mesh.client().await;
    let _application = mesh
        .application(0, |mut stream| async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream
                .write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
            while !matches!(stream.read(&mut [0; 65_536]).await, Ok(0) | Err(_)) {}
        })
        .await;
    let mut stream = client.call().await;
    let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..length / piece.len() {
        stream.write_all(&piece).await.unwrap();
        // Longer than a connection that nobody uses any more lingers, all in all.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    response
}

#[tokio::test]
async fn a_client_that_goes_on_sending_gets_the_answer_that_refused_its_upload() {
    for bare in [false, true] {
        let mesh = if bare { Mesh::new("8080/http", 1).bare(0) } else { Mesh::new("8080/http", 1) };
        let _server = if bare { None } else { Some(mesh.instance(0).await) };
        let response = upload(&mesh, 30 << 20).await;
        assert!(response.starts_with("HTTP/1.1 413 ") && response.ends_with("big"), "{response}");
    }
}

#[tokio::test]
async fn a_client_that_goes_on_sending_gets_the_answer_of_the_sidecar_itself() {
    let mesh = Mesh::new("8080/http", 1);
    let client = mesh.client().await;
    let mut stream = client.call().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 33554432\r\nContent-Length: 1\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..32 {
        stream.write_all(&vec![0; 1 << 20]).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}
