//! Java and Kafka's jars, which Maven fetches with the user's own configuration, so that mirrors and proxies are those that the user has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{TITLE, VERSION};
use crate::servers::ServerError;
use crate::servers::install::{Lock, cache_directory, checked};

/// What Maven is to fetch: the broker, the command-line tools, and something that writes the log.
const ARTIFACTS: [[&str; 3]; 3] = [
    ["org.apache.kafka", "kafka_2.13", VERSION],
    ["org.apache.kafka", "kafka-tools", VERSION],
    ["org.slf4j", "slf4j-reload4j", "1.7.36"],
];

/// How Kafka's classes are run.
#[derive(Clone, Debug)]
pub struct Programs {
    java: PathBuf,
    /// Directory of the jars.
    libs: PathBuf,
}

impl Programs {
    /// Finds Java and Kafka's jars, fetching these by Maven when needed.
    ///
    /// `WALBROOK_KAFKA_LIBS` names a directory of jars to use instead: `libs` of an installed Kafka.
    ///
    /// # Errors
    /// [`ServerError`] with what is missing, or the last lines of Maven's.
    pub fn install() -> Result<Programs, ServerError> {
        let java = java()?;
        if let Some(libs) = std::env::var_os("WALBROOK_KAFKA_LIBS").map(PathBuf::from) {
            fs::metadata(&libs).map_err(ServerError::io(&libs))?;
            return Ok(Programs { java, libs });
        }
        let cache = cache_directory()?;
        let home = cache.join("kafka");
        let libs = home.join("libs");
        let complete = libs.join(".complete");
        let pom = pom();
        // Another version starts over.
        let is_complete = || fs::read_to_string(&complete).is_ok_and(|text| text == pom);
        if !is_complete() {
            let _lock = Lock::take(&cache.join("kafka.lock"))?;
            if !is_complete() {
                tracing::info!("fetching {TITLE} {VERSION} into {}", home.display());
                let _ = fs::remove_dir_all(&home);
                fs::create_dir_all(&libs).map_err(ServerError::io(&libs))?;
                let path = home.join("pom.xml");
                fs::write(&path, &pom).map_err(ServerError::io(&path))?;
                fetch(&home, &libs)?;
                fs::write(&complete, &pom).map_err(ServerError::io(&complete))?;
            }
        }
        Ok(Programs { java, libs })
    }

    /// A command that runs `class` with these options of the JVM's.
    pub fn class(&self, jvm: &[&str], class: &str) -> Command {
        let mut command = Command::new(&self.java);
        command
            .args(jvm)
            .arg("-cp")
            .arg(self.libs.join("*"))
            .arg(class);
        command
    }
}

/// `java` of `JAVA_HOME`, or on the path.
fn java() -> Result<PathBuf, ServerError> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let java = home
        .filter(|java| java.exists())
        .unwrap_or_else(|| PathBuf::from("java"));
    let mut command = Command::new(&java);
    command.arg("-version");
    checked(command).map_err(|error| {
        ServerError::Install(format!(
            "{error}; {TITLE} needs a Java runtime (Debian: openjdk-17-jre-headless), on the path or at JAVA_HOME"
        ))
    })?;
    Ok(java)
}

fn pom() -> String {
    let dependency = |[group, artifact, version]: [&str; 3]| {
        format!(
            "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n"
        )
    };
    let dependencies: String = ARTIFACTS.into_iter().map(dependency).collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
         <groupId>walbrook</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\n  \
         <dependencies>\n{dependencies}  </dependencies>\n</project>\n"
    )
}

fn fetch(home: &Path, libs: &Path) -> Result<(), ServerError> {
    let mut command = Command::new("mvn");
    command
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .current_dir(home);
    checked(command).map_err(|error| {
        ServerError::Install(format!(
            "{error}\n{TITLE} is fetched by Maven (Debian: maven); or set WALBROOK_KAFKA_LIBS to the directory libs of an installed one"
        ))
    })
}
